"""Which service a command speaks to, and as whom: what was typed, else the environment, else this machine's own.

| what | typed | environment |
| --- | --- | --- |
| the service | `--server` | `INCUS_COURIER_SERVER` |
| the token | `--token-file` | `INCUS_COURIER_TOKEN` |
| who vouches for the service's certificate | `--ca` | `INCUS_COURIER_CA` |
| the client's certificate and key | `--cert`, `--key` | |
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from client.http import PATIENCE_S, Address, HttpClient
from daemon.model.names import printable
from daemon.process.exit_status import Misused, Unable
from daemon.process.output import warn

SERVER: Final = "INCUS_COURIER_SERVER"
TOKEN: Final = "INCUS_COURIER_TOKEN"
CA: Final = "INCUS_COURIER_CA"
#: Where a service listens that nobody configured.
DEFAULT: Final = "http://127.0.0.1:8420"
#: Where an installed one listens. Only root can put something else there.
INSTALLED_SOCKET: Final = "/run/incus-courier/api.sock"
_PORTS: Final = {"http": 80, "https": 443}
_UNIX: Final = "unix:"
_BASE: Final = re.compile(r"(?:/[A-Za-z0-9._~%!$&'()*+,;=:@-]+)*")
_VISIBLE: Final = re.compile(r"[!-~]+")
_MAX_TOKEN_BYTES: Final = 4096


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What was typed about the service; None for what was not."""

    server: str | None = None
    token_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class ChosenServer:
    """A service, and as whom it is spoken to."""

    address: Address
    #: None: nothing is shown but a client certificate, if there is one.
    token: str | None = None
    #: Who vouches for certificates; None: whom the system trusts.
    ca: Path | None = None

    def connect(self, *, patience_s: float = PATIENCE_S) -> HttpClient:
        """A connection to it, which is made by its first request; for one thread."""
        return HttpClient(self.address, self.token, patience_s=patience_s)

    def at(self, text: str) -> Address:
        """Another address of the service, as one of its cells has it, for the same credential.

        Raises Misused for what is no address, and where what is sent would be less safe than at this one: what goes by
        TLS goes on by TLS, and what stays on this machine leaves it by TLS alone. Raises Unable when a file of who
        vouches for certificates cannot be used.
        """
        there = parse_address(text)
        if there.socket is not None:
            # No other host has anything to say about sockets of this machine.
            raise Misused(f"{printable(text)} is no address of a cell, so nothing is sent there.")
        if there.tls is not None:
            return replace(there, tls=self.address.tls or _tls(self.ca, ServerOptions()))
        if self.address.tls is not None or (_stays_here(self.address) and not _stays_here(there)):
            raise Misused(f"{printable(text)} is not as safe as {self.address.name}, so nothing is sent there.")
        return there

    @property
    def shows_token(self) -> bool:
        """True when others on the way could read the token: plain HTTP to another machine."""
        return self.token is not None and self.address.tls is None and not _stays_here(self.address)

    def warn_of_readers(self) -> None:
        """Say so on stderr where others on the way could read the token."""
        if self.shows_token:
            warn(f"incus-courier: {self.address.name} is plain HTTP: others on the way can read the token")


def is_named(options: ServerOptions, environment: Mapping[str, str], config: str | None = None) -> bool:
    """True when a service or a token was named: then a command that can do both speaks HTTP.

    What was typed counts before the environment: a configuration file alone (`config`) means the state of this machine.
    """
    return bool(options.server or options.token_file
                or (not config and (environment.get(SERVER) or environment.get(TOKEN))))


def find_server(options: ServerOptions, environment: Mapping[str, str]) -> ChosenServer:
    """The service that is meant.

    Raises Misused for what cannot be understood, and Unable when a file of it cannot be read or used.
    """
    address = parse_address(options.server or environment.get(SERVER) or _own())
    ca = options.ca or (Path(environment[CA]) if environment.get(CA) else None)
    if address.tls is not None:
        address = replace(address, tls=_tls(ca, options))
    elif options.ca or options.certificate or options.key:
        raise Misused(f"{address.name} is not spoken to by TLS: --ca, --cert and --key are for https.")
    return ChosenServer(address, _token(options.token_file, environment), ca)


def _own() -> str:
    """This machine's own: the installed one, else what listens where nothing was configured."""
    return f"{_UNIX}{INSTALLED_SOCKET}" if os.path.exists(INSTALLED_SOCKET) else DEFAULT


def parse_address(text: str) -> Address:
    """Where `http://`, `https://` or `unix:/` leads; raises Misused for anything else."""
    if text.startswith(_UNIX):
        path = "/" + text.removeprefix(_UNIX).lstrip("/")
        if path == "/":
            raise Misused("unix: needs the path of a socket, for example unix:/run/incus-courier/api.sock.")
        return Address(f"unix:{path}", socket=path)
    parts, port = _split(text)
    base = parts.path.rstrip("/")
    if parts.query or parts.fragment or not _BASE.fullmatch(base):
        raise Misused(f"{printable(text)} is more than an address: leave out what comes behind the path.")
    if parts.username is not None or parts.password is not None:
        raise Misused("An address holds no password: use --token-file, or $INCUS_COURIER_TOKEN.")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if parts.scheme == "https" else None
    return Address(text, parts.hostname or "", port or _PORTS[parts.scheme], base, tls=tls)


def _split(text: str) -> tuple[SplitResult, int | None]:
    problem = Misused(f"{printable(text)} is no address of a service: use http://HOST:PORT, https://HOST"
                      " or unix:/PATH.")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise problem from None
    if parts.scheme not in _PORTS or not parts.hostname or not _VISIBLE.fullmatch(text):
        raise problem
    return parts, port


def _tls(ca: Path | None, options: ServerOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise Unable(f"{ca}: {error.strerror or 'there is no certificate in it'}") from None
    if options.key and not options.certificate:
        raise Misused("--key goes with --cert.")
    if options.certificate:
        try:
            # Nobody is asked for a password.
            context.load_cert_chain(options.certificate, options.key, password="")
        except (OSError, ssl.SSLError) as error:
            raise Unable(f"{options.certificate}: not a certificate with its key, or they cannot be read"
                         f" ({error.strerror or error})") from None
    return context


def _token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    if file is None:
        text, source = environment.get(TOKEN, ""), f"${TOKEN}"
        if not text:
            return None
    else:
        text, source = _first_line(file), str(file)
    if not _VISIBLE.fullmatch(text) or len(text) > _MAX_TOKEN_BYTES:
        raise Unable(f"There is no token in {source}.")
    return text


def _first_line(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.readline(_MAX_TOKEN_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise Unable(f"{file}: {error.strerror}") from None


def _stays_here(address: Address) -> bool:
    return address.socket is not None or _is_here(address.host)


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
