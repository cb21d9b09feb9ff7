"""Certificates for tests, made by openssl: EC keys, quick to make."""

import hashlib
import itertools
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: Without the defaults of the machine, which make every certificate an authority.
_CONFIGURATION = "[req]\ndistinguished_name = dn\n[dn]\n"
_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-utf8")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate, in hexadecimal digits."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()

    @property
    def expires_at(self) -> float:
        """When the certificate ends, in seconds since the epoch."""
        said = subprocess.run(["openssl", "x509", "-enddate", "-noout", "-in", self.certificate], check=True,
                              capture_output=True, text=True).stdout
        return float(ssl.cert_time_to_seconds(said.strip().removeprefix("notAfter=")))

    @property
    def tls(self) -> dict[str, str]:
        """The keys of [tls] for it."""
        return {"certificate": str(self.certificate), "key": str(self.key)}


class Authority:
    """Who signs certificates."""

    _numbers = itertools.count(1)

    def __init__(self, directory: Path, name: str = "Authority") -> None:
        """Its own certificate is made at once."""
        self._directory = directory
        self._config = directory / "openssl.cnf"
        self._config.write_text(_CONFIGURATION)
        self.own = self._make(f"/CN={name}", 30, "-x509", *_extensions(
            "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign", "subjectKeyIdentifier=hash"))

    def issue(self, subject: str = "/CN=localhost", *, days: int = 30, names: str = "DNS:localhost,IP:127.0.0.1") -> Pair:
        """Sign a certificate for localhost, or for other names."""
        return self._make(subject, days, *self._signing, *_extensions(
            f"subjectAltName={names}", "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid"))

    def expired(self, subject: str = "/CN=localhost") -> Pair:
        """Sign a certificate that ended yesterday."""
        pair = self.issue(subject)
        request = pair.key.with_suffix(".csr")
        _openssl("x509", "-x509toreq", "-in", pair.certificate, "-signkey", pair.key, "-out", request)
        _openssl("x509", "-req", "-in", request, "-out", pair.certificate, "-days", "-1", *self._signing)
        return pair

    @property
    def _signing(self) -> tuple[str, ...]:
        return "-CA", str(self.own.certificate), "-CAkey", str(self.own.key)

    def self_signed(self, subject: str) -> Pair:
        """A certificate that nobody else signed."""
        return self._make(subject, 30, "-x509")

    def _make(self, subject: str, days: int, *options: str) -> Pair:
        number = next(self._numbers)
        pair = Pair(self._directory / f"{number}.crt", self._directory / f"{number}.key")
        _openssl("req", "-config", self._config, *_EC, "-keyout", pair.key, "-out", pair.certificate,
                 "-days", str(days), "-subj", subject, *options)
        return pair


def _extensions(*texts: str) -> list[str]:
    return [word for text in texts for word in ("-addext", text)]


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
