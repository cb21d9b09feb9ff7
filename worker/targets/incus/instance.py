"""What Incus says of an instance at a moment, and what follows from it for a delivery. Pure."""

import posixpath
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from daemon.errors import Undelivered
from daemon.model.names import printable
from worker.targets.attributes import MAX_LINKS

#: Status codes of an instance without processes (Stopped, Error): Incus writes into its root directory alone.
_NOT_RUNNING: Final = frozenset({102, 111})
#: How Incus and LXD call the operations that copy an instance's files. Moves and evacuations show as the first two.
_COPYING: Final = frozenset({"Migrating instance", "Migrating container", "Creating instance", "Creating container"})
#: Status codes of operations that have not ended: Running, Cancelling, Pending.
_GOES_ON: Final = frozenset({103, 104, 105})
#: Where an operation says which instances it is about.
_KINDS: Final = ("instances", "containers", "virtual-machines")
#: What every instance mounts when it starts, or its init almost always does.
_MOUNTED_BY_ALL: Final = ("/dev", "/proc", "/run", "/sys")
_RAW_MOUNT: Final = re.compile(r"^\s*lxc\.mount\.entry\s*=\s*\S+\s+(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Instance:
    """An instance at a moment."""

    #: A new instance of the same name has another; a restored or renamed one keeps its own.
    identity: str
    status: str
    running: bool
    is_container: bool
    #: Where something is mounted while it runs, so that nobody sees what lies beneath.
    mounts: frozenset[str]
    #: The member of a cluster and the storage pool that it is on. Moved to others, it keeps its identity.
    place: tuple[str, str] = ("", "")

    def hides(self, path: str, link_at: Callable[[str], str | None], *, follow_last: bool) -> str | None:
        """Return the mount point at or below which a file at an absolute path would be hidden; None if there is none.

        Links count: `link_at(path)` is where the one at that path points, None where there is none. The last name of
        the path is looked at with `follow_last` only. Raises Undelivered('too_many_links').
        """
        if self.running:
            return None
        found, rest, links = "/", path.split("/"), 0
        while rest:
            name = rest.pop(0)
            found = posixpath.normpath(posixpath.join(found, name))
            if found in self.mounts:
                return found
            may_be_link = name not in {"", ".", ".."} and (rest or follow_last)
            target = link_at(found) if may_be_link else None
            if target is not None:
                found, rest = posixpath.dirname(found), [*target.split("/"), *rest]
                found = "/" if target.startswith("/") else found
                links += 1
            if links > MAX_LINKS:
                raise Undelivered("too_many_links", f"more than {MAX_LINKS} symbolic links in {printable(path)}")
        return None


def read(answer: Mapping[str, Any]) -> Instance:
    """Make an Instance of what Incus or LXD answers to GET /1.0/instances/NAME. Raises Undelivered for nonsense."""
    try:
        config = answer["expanded_config"]
        # The oldest have no identity until their first start; the time they were made at tells them apart meanwhile.
        identity = config.get("volatile.uuid") or answer["created_at"]
        return Instance(
            identity=identity, status=answer["status"], running=answer["status_code"] not in _NOT_RUNNING,
            is_container=answer["type"] == "container", mounts=frozenset(_mounts(config, answer["expanded_devices"])),
            place=(answer.get("location", ""), _pool(answer["expanded_devices"])))
    except (KeyError, TypeError, AttributeError) as error:
        raise Undelivered("incus_error", f"not the description of an instance: {error!r}") from error


def is_being_moved(operations: Mapping[str, Any], name: str) -> bool:
    """True when one of the operations copies the files of an instance: it may be about to be moved.

    `operations` is what Incus answers to GET /1.0/operations?recursion=1 for its project. What is written into an
    instance that does not run after its files were copied is lost with them, without an error. A copy that is no
    move cannot be told from one. Raises Undelivered for nonsense.
    """
    try:
        return any(
            operation["description"] in _COPYING and operation["status_code"] in _GOES_ON and _names(operation, name)
            for group in operations.values() for operation in group)
    except (KeyError, TypeError, AttributeError) as error:
        raise Undelivered("incus_error", f"not a list of operations: {error!r}") from error


def _names(operation: Mapping[str, Any], name: str) -> bool:
    resources = operation["resources"] or {}
    paths = (urllib.parse.urlsplit(address).path for kind in _KINDS for address in resources.get(kind) or ())
    return any(urllib.parse.unquote(path.rpartition("/")[2]) == name for path in paths)


def _pool(devices: Mapping[str, Mapping[str, str]]) -> str:
    roots = (device for device in devices.values() if device["type"] == "disk" and device.get("path") == "/")
    return next((device.get("pool", "") for device in roots), "")


def _mounts(config: Mapping[str, str], devices: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    yield from _MOUNTED_BY_ALL
    places = [device["path"] for device in devices.values() if device["type"] == "disk" and "path" in device]
    for place in [*places, *_RAW_MOUNT.findall(config.get("raw.lxc", ""))]:
        path = posixpath.normpath(f"/{place.lstrip('/')}")
        if path != "/":
            yield path
