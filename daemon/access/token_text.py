"""What a token looks like: `icour_ID_SECRETCHECKSUM`, for people, for clients and for scanners of secrets.

Letters, digits and `_` only, so that it needs quotes nowhere. The id is public, and says which token it is. The secret
has 256 random bits. The checksum is the CRC-32 of all before it, as zlib has it, as six base62 digits, the highest
first: a scanner knows a token by `PATTERN`, and tells by the checksum that it is one.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from typing import Final, NamedTuple

#: What each token begins with.
PREFIX: Final = "icour"
#: The digits of base62, in the order of their values.
DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: Characters of an id.
ID_LENGTH: Final = 12
#: So many base62 digits hold 256 bits.
_SECRET_LENGTH: Final = 43
#: So many hold 32.
_CHECKSUM_LENGTH: Final = 6
#: What a scanner of secrets looks for.
PATTERN: Final = rf"{PREFIX}_[0-9A-Za-z]{{{ID_LENGTH}}}_[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}"

_WHOLE: Final = re.compile(PATTERN)
_SHOWN: Final = re.compile(rf"({PREFIX}_[0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]+")
#: The form of an id.
ID: Final = rf"[0-9A-Za-z]{{{ID_LENGTH}}}"
_ID: Final = re.compile(ID)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class TokenText(NamedTuple):
    """What is known of a token that somebody shows: nothing that could be shown again."""

    key_id: str
    #: Of the whole text, as 64 small hexadecimal digits.
    sha256: str


class MadeToken(NamedTuple):
    """A new token: its text, which is told once and kept nowhere, and what is kept."""

    text: str
    key_id: str
    sha256: str


def make() -> MadeToken:
    """A new token that nobody can guess."""
    key_id = _random(ID_LENGTH)
    begun = f"{PREFIX}_{key_id}_{_random(_SECRET_LENGTH)}"
    text = f"{begun}{_checksum(begun)}"
    return MadeToken(text, key_id, _sha256(text))


def read(text: str) -> TokenText | None:
    """What can be known of a token by its text; None when it is none, or was typed wrong."""
    if _WHOLE.fullmatch(text) is None or _checksum(text[:-_CHECKSUM_LENGTH]) != text[-_CHECKSUM_LENGTH:]:
        return None
    key_id = text[len(PREFIX) + 1:][:ID_LENGTH]
    return TokenText(key_id, _sha256(text))


def without_secrets(text: str) -> str:
    """The text with the id alone of each token in it: somebody may have put one where it does not belong."""
    return _SHOWN.sub(r"\1_…", text)


def is_same(one_sha256: str, other_sha256: str) -> bool:
    """True when two digests are the same; how long that takes tells nothing of where they differ."""
    return hmac.compare_digest(one_sha256, other_sha256)


def check_id(text: str) -> str:
    """Return `text` if it can be the id of a token; raise ValueError if not."""
    if _ID.fullmatch(text) is None:
        raise ValueError(f"must be {ID_LENGTH} letters and digits")
    return text


def check_sha256(text: str) -> str:
    """Return `text` if it is a SHA-256; raise ValueError if not."""
    if _SHA256.fullmatch(text) is None:
        raise ValueError("must be 64 of 0-9 a-f")
    return text


def _random(length: int) -> str:
    return "".join(secrets.choice(DIGITS) for _ in range(length))


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(DIGITS))
        digits = DIGITS[digit] + digits
    return digits


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
