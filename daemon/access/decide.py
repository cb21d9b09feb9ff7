"""The one decision about rights: whether somebody may do something, and if not, why.

Pure: routes, listings and streams all ask here, and nothing else decides.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from daemon.access.caller import Caller
from daemon.model.glob import name_matches, path_matches
from daemon.model.grant import UNIX, Grant, Permission, Range, within
from daemon.model.upload import Destination

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class UploadWish(NamedTuple):
    """What an upload asks for besides its destination."""

    #: None: not known before the end.
    size: int | None = None
    #: None: what the administrator configured.
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    #: True when directories would be made because the upload itself asks for it.
    mkdirs: bool = False


#: Whoever sent a task: for a question in which that does not matter.
ANYBODY: Final = object()


def decide(
    caller: Caller, permission: Permission, destination: Destination | None = None, *,
    wish: UploadWish | None = None, sender: object = ANYBODY,
) -> str | None:
    """The code of the error with which it is refused, or None: it is allowed.

    `sender` is the client of the task that it is about. What every grant of the caller allows is allowed. Limits on
    rates and amounts are not looked at here: they need counts.
    """
    for link in caller.links:
        code = _refusal(link.grant, caller.address, permission, destination, wish)
        if code is not None:
            return code
    return "task_not_allowed" if sender is not ANYBODY and own_alone(caller) and sender != caller.name else None


def own_alone(caller: Caller) -> bool:
    """True when only tasks that he sent himself are his affair."""
    return any(link.grant.own for link in caller.links)


def largest_file(caller: Caller) -> int | None:
    """The most bytes that one file of his may have; None: no limit of his own."""
    limits = [link.grant.max_file_bytes for link in caller.links if link.grant.max_file_bytes is not None]
    return min(limits) if limits else None


def instance_allowed(caller: Caller, instance_key: str) -> bool:
    """True when every grant lets him reach some path of the instance."""
    remote, project, instance = instance_key.split("/", 2)
    return all(_place_refusal(link.grant, remote, project, instance) is None for link in caller.links)


def _refusal(
    grant: Grant, address: str | None, permission: Permission, destination: Destination | None, wish: UploadWish | None,
) -> str | None:
    if permission not in grant.may:
        return "action_not_allowed"
    if grant.addresses is not None and not _comes_from(grant.addresses, address):
        return "address_not_allowed"
    if destination is not None and (code := _destination_refusal(grant, destination)) is not None:
        return code
    return None if wish is None else _upload_refusal(grant, wish)


def _destination_refusal(grant: Grant, to: Destination) -> str | None:
    code = _place_refusal(grant, to.remote, to.project, to.instance)
    if code is None and grant.paths is not None and not any(path_matches(glob, to.path) for glob in grant.paths):
        code = "path_not_allowed"
    return code


def _place_refusal(grant: Grant, remote: str, project: str, instance: str) -> str | None:
    if not _meant(grant.remotes, remote):
        return "remote_not_allowed"
    if not _meant(grant.projects, project):
        return "project_not_allowed"
    return None if _meant(grant.instances, instance) else "instance_not_allowed"


def _meant(globs: Iterable[str] | None, name: str) -> bool:
    return globs is None or any(name_matches(glob, name) for glob in globs)


def _upload_refusal(grant: Grant, wish: UploadWish) -> str | None:
    if wish.mkdirs and not grant.mkdirs:
        return "mkdirs_not_allowed"
    if (wish.mode or 0) & ~grant.modes:
        return "mode_not_allowed"
    if not (_may_own(wish.uid, grant.uids) and _may_own(wish.gid, grant.gids)):
        return "owner_not_allowed"
    if grant.max_file_bytes is not None and (wish.size or 0) > grant.max_file_bytes:
        return "size_not_allowed"
    return None


def _may_own(number: int | None, ranges: Iterable[Range]) -> bool:
    return number is None or within(ranges, number)


def _comes_from(networks: Iterable[str], address: str | None) -> bool:
    if address is None:
        return UNIX in networks
    found = ipaddress.ip_address(address.partition("%")[0])
    plain = getattr(found, "ipv4_mapped", None) or found
    return any(text != UNIX and plain in _network(text) for text in networks)


@lru_cache(maxsize=1024)
def _network(text: str) -> Network:
    return ipaddress.ip_network(text)
