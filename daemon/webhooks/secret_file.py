"""The secrets that a webhook's messages are signed with."""

from pathlib import Path
from typing import Final

from daemon.config import Webhook
from daemon.config.validators import read_secrets

#: No file of secrets is longer, in bytes.
_MOST_BYTES: Final = 4096


class NoSecret(Exception):
    """Raised when a webhook's secrets cannot be had; its text says why, and holds none."""


def secrets_of(webhook: Webhook, file: Path | None = None) -> list[bytes]:
    """The secrets of a webhook, newest first, read anew: so they can be changed while the service runs.

    `file` is where they are when not where the configuration says. Raises NoSecret.
    """
    path = file or webhook.secret_file
    if path is None:
        return read_secrets(webhook.secret)
    try:
        with path.open("rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError("the file is too long")
        return read_secrets(data.decode("ascii"))
    except OSError as error:
        raise NoSecret(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise NoSecret(f"{path}: it holds no secrets") from None
    except ValueError as error:
        raise NoSecret(f"{path}: {error}") from None
