"""The certificate that a client showed, as a value."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: What `ssl` calls the parts of a name, and how they are written (RFC 4514, 3).
_SHORT: Final = {
    "commonName": "CN", "localityName": "L", "stateOrProvinceName": "ST", "organizationName": "O",
    "organizationalUnitName": "OU", "countryName": "C", "streetAddress": "STREET", "domainComponent": "DC",
    "userId": "UID",
}
_SPECIAL: Final = re.compile(r'[,+"\\<>;]|^[ #]| $')
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

#: A name as `ssl.SSLSocket.getpeercert` gives it.
Name = Iterable[Iterable[tuple[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCertificate:
    """A client certificate that was verified, and whose key the client has."""

    #: The SHA-256 of it, in hexadecimal digits.
    fingerprint: str
    #: Whose it is, as `subject_text` writes it.
    subject: str
    #: When it ends, in seconds since the epoch; a connection may outlive it.
    expires_at: float = math.inf
    #: Which of the configured `ca` files vouch for it, by their paths as configured.
    authorities: frozenset[str] = frozenset()


def subject_text(name: Name) -> str:
    """A name in one line (RFC 4514), as `openssl x509 -noout -subject -nameopt RFC2253,-esc_msb,utf8` prints it."""
    return ",".join("+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in part)
                    for part in reversed([list(part) for part in name]))


def _escaped(value: str) -> str:
    return _CONTROL.sub(lambda found: f"\\{ord(found[0]):02X}", _SPECIAL.sub(r"\\\g<0>", value))
