"""What TLS is spoken with."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.config import CREDENTIALS, Config
from daemon.errors import CannotStart
from daemon.process.tls import read_tls, stamps
from tests.support.certificates import Authority, Pair


def config_of(tls: dict[str, str], *certificates: dict[str, Any]) -> Config:
    """A configuration with a certificate."""
    return Config.model_validate({"tls": tls, "certificates": [{"may": ["read"], **entry} for entry in certificates]})


@pytest.fixture
def own(authority: Authority, tmp_path: Path) -> Pair:
    """A pair that a test may change."""
    issued = authority.issue()
    pair = Pair(tmp_path / "own.crt", tmp_path / "own.key")
    pair.certificate.write_bytes(issued.certificate.read_bytes())
    pair.key.write_bytes(issued.key.read_bytes())
    return pair


def test_pair_is_read_from_where_systemd_put_it(own: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """$CREDENTIALS_DIRECTORY is filled in."""
    monkeypatch.setenv(CREDENTIALS, str(own.key.parent))
    tls = {"certificate": "$CREDENTIALS_DIRECTORY/own.crt", "key": "$CREDENTIALS_DIRECTORY/own.key"}
    assert read_tls(config_of(tls)).fingerprint == own.fingerprint
    assert None not in stamps(config_of(tls)).values()


SPOILED: list[tuple[Callable[[Pair, Authority], object], str]] = [
    (lambda own, authority: own.key.write_bytes(authority.issue().key.read_bytes()), "mismatch"),
    (lambda own, authority: own.certificate.unlink(), "No such file"),
    (lambda own, authority: own.key.unlink(), "No such file"),
    (lambda own, authority: own.certificate.write_text(""), "no certificate"),
    (lambda own, authority: own.key.write_text("no key"), "tls.key"),
    (lambda own, authority: own.certificate.write_bytes(own.certificate.read_bytes()[:200]), "no certificate"),
]


@pytest.mark.parametrize(("spoil", "said"), SPOILED)
def test_pair_that_cannot_be_used_is_refused(
    own: Pair, authority: Authority, spoil: Callable[[Pair, Authority], object], said: str,
) -> None:
    """The message names the key of the configuration and says what is wrong; the stamps show the change."""
    config = config_of(own.tls)
    before = stamps(config)
    spoil(own, authority)
    assert stamps(config) != before
    with pytest.raises(CannotStart, match=f"tls.certificate .*{said}") as raised:
        read_tls(config)
    assert raised.value.code == "bad_certificate"


def test_key_with_a_password_is_refused(own: Pair) -> None:
    """Nobody is asked for it."""
    locked = own.key.with_suffix(".locked")
    subprocess.run(["openssl", "ec", "-in", own.key, "-aes256", "-passout", "pass:x", "-out", locked], check=True, capture_output=True)
    with pytest.raises(CannotStart, match=r"tls\.key"):
        read_tls(config_of({**own.tls, "key": str(locked)}))


def test_authority_of_a_client_has_to_be_among_those_that_are_looked_at(own: Pair, authority: Authority, tmp_path: Path) -> None:
    """Else nobody could ever show a certificate of it."""
    other = Authority(tmp_path, "Other")
    entry = {"name": "web", "ca": str(other.own.certificate), "subject": "CN=web"}
    with pytest.raises(CannotStart, match=r"tls\.client_ca"):
        read_tls(config_of(own.tls, entry))
    with pytest.raises(CannotStart, match=r"certificates\.ca"):
        read_tls(config_of({**own.tls, "client_ca": str(authority.own.certificate)}, entry))
    read_tls(config_of({**own.tls, "client_ca": str(other.own.certificate)}, entry))
