"""What `incus-courier check` says of webhooks: whether their secrets are there, and somebody who sends."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from daemon.cli.check_result import CheckResult
from daemon.config import CREDENTIALS, Config, Webhook
from daemon.webhooks import frames
from daemon.webhooks.secret_file import NoSecret, secrets_of

#: What the sender's unit names in LoadCredential=webhooks:
INSTALLED_SECRETS: Final = Path("/etc/incus-courier/webhooks")
#: What systemd puts before the names of these files.
_PREFIX: Final = "webhooks_"
#: How long the sender may take to be there.
_PATIENCE_S: Final = 5.0


def webhook_findings(config: Config) -> Iterator[CheckResult]:
    """A line for each webhook. For root, or for who may read the secrets."""
    for webhook in config.webhooks:
        what = f"webhook {webhook.name}"
        try:
            number = len(secrets_of(webhook, _installed(webhook)))
        except NoSecret as error:
            yield CheckResult(what, False, f"its secret: {error}",
                              "Write whsec_BASE64 of 24 to 64 bytes into the file, and run this as root.")
            continue
        inline = "" if webhook.secret_file else "; the secret is in the configuration file, for all who read that"
        yield CheckResult(what, True, f"{webhook.shown_url}, {number} secret{'s' if number > 1 else ''}{inline}")


def sender_finding(config: Config) -> CheckResult:
    """Whether a worker would reach the sender. To be asked as the worker's user."""
    path = config.sender_socket
    try:
        frames.connect(path, _PATIENCE_S).close()
    except (FileNotFoundError, ConnectionRefusedError) as error:
        if not config.sender.socket:
            return CheckResult("sender", True, f"{path}: not there now; serve starts it")
        return _missing(path, error)
    except OSError as error:
        return _missing(path, error)
    return CheckResult("sender", True, str(path))


def _missing(path: Path, error: OSError) -> CheckResult:
    return CheckResult(
        "sender", False, f"{path}: {error.strerror or error}", why="Messages to webhooks wait.",
        hint="systemctl start incus-courier-sender.socket, and see that sender.socket in the configuration names it")


def _installed(webhook: Webhook) -> Path | None:
    """Where a secret is that systemd hands to the sender, for whoever is not the sender."""
    variable = f"${CREDENTIALS}/"
    if CREDENTIALS in os.environ or not webhook.secret.startswith(variable):
        return None
    return INSTALLED_SECRETS / webhook.secret.removeprefix(variable).removeprefix(_PREFIX)
