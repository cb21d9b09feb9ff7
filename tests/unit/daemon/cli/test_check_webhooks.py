from pathlib import Path

import pytest

from daemon.cli import check_webhooks
from daemon.config import Config
from sender.service import listen
from tests.support.receiver import SECRET


def a_config(directory: Path, secret: str) -> Config:
    """A configuration with one webhook."""
    return Config.model_validate({"state": {"directory": str(directory)}, "webhooks": [
        {"name": "ci", "url": "https://a.example/?token=abc", "secret": secret}]})


def test_secrets_are_looked_at_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in the configuration, in a file, and those that systemd hands to the sender alone."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(check_webhooks, "INSTALLED_SECRETS", tmp_path)
    file = tmp_path / "ci"
    for secret in (str(file), "$CREDENTIALS_DIRECTORY/webhooks_ci", SECRET):
        file.write_text(f"{SECRET}\n{SECRET}\n")
        [found] = check_webhooks.webhook_findings(a_config(tmp_path, secret))
        assert found.ok
        assert found.detail.startswith("https://a.example/?…, ")
        assert ("2 secrets" in found.detail) == (secret != SECRET)
        for text in ("", f"{SECRET}x", "whsec_c2hvcnQ=", "ü"):
            file.write_text(text)
            [found] = check_webhooks.webhook_findings(a_config(tmp_path, secret))
            assert found.ok == (secret == SECRET)
            assert SECRET not in found.detail
    file.unlink()
    [found] = check_webhooks.webhook_findings(a_config(tmp_path, str(file)))
    assert found.detail == f"its secret: {file}: No such file or directory"


def test_sender_that_is_not_there_is_missed(tmp_path: Path) -> None:
    """The line says where it was looked for."""
    config = a_config(tmp_path, SECRET)
    assert check_webhooks.sender_finding(config).detail == f"{tmp_path}/sender.sock: not there now; serve starts it"
    config = config.model_copy(update={"sender": config.sender.model_copy(update={"socket": f"{tmp_path}/own.sock"})})
    missing = check_webhooks.sender_finding(config)
    assert (missing.ok, missing.detail) == (False, f"{tmp_path}/own.sock: No such file or directory")
    listen(config).close()
    assert not check_webhooks.sender_finding(config).ok
    # The name that was left is taken over.
    with listen(config):
        assert check_webhooks.sender_finding(config).ok
