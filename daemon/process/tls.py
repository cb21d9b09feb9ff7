"""What TLS is spoken with: the service's certificate, and who vouches for those of clients.

Guarantees: TLS 1.2 or newer, HTTP/1.1; a client certificate is asked for where `tls.client_ca` is set alone, and counts
only once it was verified. A pair that does not match, or a file that cannot be read, is an error, and changes nothing.
"""

import hashlib
import re
import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Final, cast

from daemon.config import Config
from daemon.errors import CannotStart
from daemon.model.certificate import Name, ShownCertificate, subject_text
from daemon.state.files import Stamp, stamp_of

#: As many certificates are remembered for the sake of sessions that are taken up again.
_REMEMBERED: Final = 10_000
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class ServerTls:
    """One reading of the files; new ones are a new reading."""

    def __init__(self, context: ssl.SSLContext, fingerprint: str, authorities: Mapping[str, frozenset[bytes]]) -> None:
        """See `read_tls`."""
        self.context: Final = context
        #: The SHA-256 of the service's own certificate, in hexadecimal digits.
        self.fingerprint: Final = fingerprint
        self._authorities = authorities
        #: Which authorities vouch for a certificate, by its fingerprint.
        self._verified: dict[str, frozenset[str]] = {}

    def shown(self, session: ssl.SSLObject) -> ShownCertificate | None:
        """The certificate of the client of a session whose handshake has succeeded, or None: it showed none.

        Raises ssl.SSLError for one that has expired since it was verified.
        """
        der = session.getpeercert(binary_form=True)
        described = session.getpeercert()
        if der is None or not described:
            return None
        fingerprint = hashlib.sha256(der).hexdigest()
        expires_at = ssl.cert_time_to_seconds(str(described["notAfter"]))
        if session.session_reused:
            # Nothing is verified anew then, and the chain is not kept: what was verified is remembered here.
            if expires_at < time.time():
                raise ssl.SSLCertVerificationError("certificate has expired")
        else:
            self._remember(fingerprint, session)
        return ShownCertificate(fingerprint=fingerprint, subject=subject_text(cast(Name, described["subject"])),
                                expires_at=expires_at, authorities=self._verified.get(fingerprint, frozenset()))

    def _remember(self, fingerprint: str, session: ssl.SSLObject) -> None:
        if len(self._verified) >= _REMEMBERED:
            self._verified.clear()
        chain = _verified_chain(session)
        self._verified[fingerprint] = frozenset(path for path, held in self._authorities.items() if held & chain)


def read_tls(config: Config) -> ServerTls:
    """Read the files of [tls], and those named by [[certificates]]. Raises CannotStart('bad_certificate')."""
    tls = config.tls
    if not tls.certificate:
        raise CannotStart("bad_certificate", "tls.certificate and tls.key: an address that begins with tls: needs both")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    own = _certificates("tls.certificate", tls.file(tls.certificate))
    try:
        # An encrypted key cannot be used, and nobody is asked for its password.
        context.load_cert_chain(tls.file(tls.certificate), tls.file(tls.key), password=b"")
    except (OSError, ValueError) as error:
        raise _unusable(f"tls.certificate {tls.certificate} with tls.key {tls.key}", error) from error
    return ServerTls(context, hashlib.sha256(own[0]).hexdigest(), _trust(context, config))


def _trust(context: ssl.SSLContext, config: Config) -> dict[str, frozenset[bytes]]:
    """Have the certificates of clients verified; return those in each `ca` file."""
    tls = config.tls
    paths = {entry.ca for entry in config.certificates if entry.ca}
    if not tls.client_ca:
        if config.certificates:
            raise CannotStart("bad_certificate", "tls.client_ca: must have the authorities of [[certificates]]")
        return {}
    known = set(_certificates("tls.client_ca", tls.file(tls.client_ca)))
    context.load_verify_locations(tls.file(tls.client_ca))
    context.verify_mode = ssl.CERT_OPTIONAL
    # So that a certificate of which the file has no authority can be listed by itself.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    authorities = {path: frozenset(_certificates("certificates.ca", tls.file(path))) for path in paths}
    for path, held in authorities.items():
        if not held <= known:
            raise CannotStart("bad_certificate", f"certificates.ca {path}: tls.client_ca must have it too")
    return authorities


def _certificates(key: str, path: str) -> list[bytes]:
    """The certificates in a file, one at least."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = [ssl.PEM_cert_to_DER_cert(text) for text in _PEM.findall(file.read())]
    except (OSError, ValueError) as error:
        raise _unusable(f"{key} {path}", error) from error
    if not found:
        raise CannotStart("bad_certificate", f"{key} {path}: there is no certificate in it (PEM)")
    return found


def _unusable(what: str, error: OSError | ValueError) -> CannotStart:
    reason = (error.reason or "").replace("_", " ").lower() if isinstance(error, ssl.SSLError) else ""
    return CannotStart("bad_certificate", f"{what}: {reason or getattr(error, 'strerror', None) or error}")


def _verified_chain(session: ssl.SSLObject) -> frozenset[bytes]:
    """The certificates that a verified one was traced back by, in DER, itself and its authority included.

    Only Python 3.13 says so in public; 3.11 and 3.12 have the same behind it, and change no more.
    """
    public = getattr(session, "get_verified_chain", None)
    if public is not None:
        return frozenset(public())
    inner = vars(session)["_sslobj"]
    return frozenset(ssl.PEM_cert_to_DER_cert(link.public_bytes()) for link in inner.get_verified_chain() or ())


def stamps(config: Config) -> dict[str, Stamp]:
    """What tells that a file that `read_tls` reads has changed."""
    tls = config.tls
    named: Iterable[str] = (tls.certificate, tls.key, tls.client_ca, *(entry.ca for entry in config.certificates))
    return {path: stamp_of(tls.file(path)) for path in named if path}
