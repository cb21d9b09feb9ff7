"""What `incus-courier check` says of the addresses where TLS is spoken."""

import ipaddress
import os
import pwd
import ssl
import subprocess
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from daemon.access.token_file import READERS, readers_gid
from daemon.config import CREDENTIALS, Config
from daemon.errors import CourierError
from daemon.process.listeners import TLS
from daemon.process.tls import ServerTls, read_tls

#: A certificate is to be renewed when less than so many seconds, and this part of its lifetime, are left.
SOON_S: Final = 14 * 86400.0
SOON_SHARE: Final = 1 / 4
_UNIT: Final = "incus-courier-api.service"
_SOCKET_UNIT: Final = "incus-courier-api.socket"
_USER: Final = "incus-courier-api"
#: From what `openssl` says (X509_V_ERR_CERT_HAS_EXPIRED).
_EXPIRED: Final = 10

#: What was looked at, whether it is well, what was found, and what to do about it.
Finding = tuple[str, bool, str, str]


def tls_findings(config: Config, *, installed: bool) -> Iterator[Finding]:
    """Look at the files, and where systemd runs the service (`installed`) at what its unit lets through."""
    addresses = [address.removeprefix(TLS) for address in config.api.listen if address.startswith(TLS)]
    if not addresses:
        return
    paths = [config.tls.file(path) for path in (config.tls.certificate, config.tls.key, config.tls.client_ca) if path]
    if any(path.startswith(f"${CREDENTIALS}") for path in paths):
        yield "certificate", True, "handed over by systemd (LoadCredential=), so it is not looked at here", ""
    else:
        yield _certificate(config)
        if installed:
            yield from _readable(paths)
    if installed and (reached := [address for address in addresses if _is_for_others(address)]):
        yield from _let_through(reached)


def _certificate(config: Config) -> Finding:
    try:
        described = own_certificate(read_tls(config), config)
    except CourierError as error:
        return "certificate", False, error.detail, error.kind.hint
    except ssl.SSLCertVerificationError as error:
        detail = "has expired" if error.verify_code == _EXPIRED else error.verify_message
        return "certificate", False, f"{config.tls.certificate}: {detail}", "Have it renewed."
    names = ", ".join(name for _, name in described.get("subjectAltName", ()))
    ends_at, begins_at = (ssl.cert_time_to_seconds(described[key]) for key in ("notAfter", "notBefore"))
    text = f"{config.tls.certificate}: for {names or 'no name, so no client accepts it'}, until {described['notAfter']}"
    if not names:
        return "certificate", False, text, "Have one made with the names of this machine (subjectAltName)."
    return ("certificate", not ends_soon(begins_at, ends_at, time.time()), text,
            "It ends soon: have it renewed. It is read again by itself.")


def ends_soon(begins_at: float, ends_at: float, now: float) -> bool:
    """True when a certificate is to be renewed; those that live for a few days are renewed late. Pure."""
    return ends_at - now < min(SOON_S, (ends_at - begins_at) * SOON_SHARE)


def own_certificate(tls: ServerTls, config: Config) -> dict[str, Any]:
    """What is in the service's certificate, as a client that trusts it finds it.

    Raises ssl.SSLCertVerificationError when none would accept it, whoever signed it.
    """
    with open(config.tls.file(config.tls.certificate), encoding="ascii", errors="replace") as file:
        pem = file.read()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=pem)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server)
    server = tls.context.wrap_bio(to_server, to_client, server_side=True)
    while not _has_shaken(client):
        _has_shaken(server)
    return client.getpeercert() or {}


def _has_shaken(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _readable(paths: Iterable[str]) -> Iterator[Finding]:
    """Whether the service's user can read the files; only root can tell."""
    try:
        user = pwd.getpwnam(_USER)
    except KeyError:
        return
    if os.geteuid() != 0:
        return
    readers = readers_gid()
    groups = [*os.getgrouplist(_USER, user.pw_gid), *([] if readers is None else [readers])]
    for path in paths:
        done = subprocess.run(["test", "-r", path], user=user.pw_uid, group=user.pw_gid, check=False,
                              extra_groups=groups)
        if done.returncode:
            yield ("certificate", False, f"{path}: the user {_USER} cannot read it",
                   f"Give it to the group {READERS}, or have systemd hand it over (docs/install.md).")


def _let_through(reached: list[str]) -> Iterator[Finding]:
    unit = dict(_shown(_UNIT, "LoadState", "IPAddressDeny", "IPAddressAllow"))
    # What systemd opens is not bound by the lists of the service.
    opened = {value.rpartition(" (")[0] for _, value in _shown(_SOCKET_UNIT, "Listen")}
    reached = [address for address in reached if address not in opened]
    if unit.get("LoadState") != "loaded" or not reached:
        return
    shut = keeps_others_out(unit.get("IPAddressDeny", ""), unit.get("IPAddressAllow", ""))
    yield ("network", not shut, f"{_UNIT} {'keeps other machines from' if shut else 'lets other machines reach'} "
           f"{', '.join(reached)}", "Let systemd open it, or give the unit the network (docs/install.md, The network).")


def _shown(unit: str, *properties: str) -> list[tuple[str, str]]:
    """What systemd says of a unit; nothing where there is none."""
    options = [word for name in properties for word in ("-p", name)]
    try:
        done = subprocess.run(
            ["systemctl", "show", unit, *options], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [(name, value) for name, _, value in (line.partition("=") for line in done.stdout.splitlines())]


def keeps_others_out(deny: str, allow: str) -> bool:
    """True when a unit with these lists of networks is reached from this machine alone. Pure."""
    denies_all = any(ipaddress.ip_network(network).prefixlen == 0 for network in deny.split())
    return denies_all and all(ipaddress.ip_network(network).is_loopback for network in allow.split())


def _is_for_others(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        # The name of a host; descriptors are as whoever opened them has it.
        return host not in {"localhost", "fd"}
