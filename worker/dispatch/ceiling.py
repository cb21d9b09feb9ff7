"""What the worker delivers at most, whatever is in the queue: [delivery.allow] and [delivery.deny]. Pure.

A front door that was broken into can put any row into the queue. So each push is held against this by the worker, with
the configuration of now. What is allowed is compared exactly. What is denied is compared also without regard to case
and Unicode's forms: on a filesystem that ignores them, another spelling is the same file.
"""

import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from daemon.config import Allowed, DeliverySection, Denied
from daemon.model.glob import folded, name_matches, path_matches
from daemon.model.grant import KEYS, Range, within
from daemon.model.names import printable
from daemon.model.upload import MAX_ID, Upload

_EVERY_PATH: Final = "/**"
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID
_EVERYTHING: Final = Allowed()
_NOTHING: Final = Denied()


@dataclass(frozen=True)
class Ceiling:
    """[delivery.allow] and [delivery.deny]. Each refusal names its rule; None means that nothing is in the way."""

    allow: Allowed
    deny: Denied

    def refusal(self, upload: Upload) -> str | None:
        """Why the upload is not to be delivered, as far as its row tells; None if it may be.

        Mode and owner that it does not name are the administrator's own, and not refused.
        """
        return next(self._refusals(upload), None)

    def _refusals(self, upload: Upload) -> Iterator[str]:
        to = upload.destination
        yield from _name_refusals("remotes", to.remote, self.allow.remotes, self.deny.remotes)
        yield from _name_refusals("projects", to.project, self.allow.projects, self.deny.projects)
        yield from _name_refusals("instances", to.instance, self.allow.instances, self.deny.instances)
        yield from self._path_refusals(to.path, mkdirs=upload.mkdirs)
        if upload.mode is not None:
            yield from self._mode_refusals(upload.mode)
        if upload.uid is not None:
            yield from _id_refusals("uids", upload.uid, self.allow.uids, self.deny.uids)
        if upload.gid is not None:
            yield from _id_refusals("gids", upload.gid, self.allow.gids, self.deny.gids)

    def path_rule(self, upload: Upload) -> Callable[[str], str | None] | None:
        """What says why the upload must not be written at a path, all links resolved; None where it may be anywhere."""
        if _EVERY_PATH in self.allow.paths and not self.deny.paths:
            return None
        return lambda path: next(self._path_refusals(path, mkdirs=upload.mkdirs), None)

    def set_id_rule(self) -> Callable[[int, int, int], str | None] | None:
        """What says why a file must not have a mode, a user and a group because of its set-id bits; None where it may.

        Whoever named the owner: what counts is whose rights the file gives.
        """
        everybody = ((0, MAX_ID),)
        owners = (_ranges(tuple(self.allow.uids)), _ranges(tuple(self.allow.gids)))
        if (not any(self._mode_refusals(_SET_ID)) and not (self.deny.uids or self.deny.gids)
                and all(ranges == everybody for ranges in owners)):
            return None
        return lambda mode, uid, gid: next(self._set_id_refusals(mode, uid, gid), None)

    def _set_id_refusals(self, mode: int, uid: int, gid: int) -> Iterator[str]:
        yield from self._mode_refusals(mode & _SET_ID)
        if mode & stat.S_ISUID:
            yield from _id_refusals("uids", uid, self.allow.uids, self.deny.uids)
        if mode & stat.S_ISGID:
            yield from _id_refusals("gids", gid, self.allow.gids, self.deny.gids)

    def _path_refusals(self, path: str, *, mkdirs: bool) -> Iterator[str]:
        if posixpath.normpath(path) != path or not path.startswith("/") or path.startswith("//"):
            yield f"{printable(path)} is not normalised"
        if not any(path_matches(glob, path) for glob in self.allow.paths):
            yield f"delivery.allow.paths does not have {printable(path)}"
        # A directory that is made may be what must not be there.
        for place in [path, *_above(path)] if mkdirs else [path]:
            for glob in self.deny.paths:
                if path_matches(glob, place) or path_matches(_folded_path(glob), _folded_path(place)):
                    yield f"delivery.deny.paths has {glob}"

    def _mode_refusals(self, mode: int) -> Iterator[str]:
        if mode & ~int(self.allow.modes, 8):
            yield f"mode {mode:04o} is more than delivery.allow.modes, {self.allow.modes}"
        if mode & int(self.deny.modes, 8):
            yield f"mode {mode:04o} has bits of delivery.deny.modes, {self.deny.modes}"


def ceiling_of(rules: DeliverySection) -> Ceiling | None:
    """The ceiling that is configured; None where nothing is above it, and nothing has to be looked at."""
    if rules.allow == _EVERYTHING and rules.deny == _NOTHING:
        return None
    return Ceiling(rules.allow, rules.deny)


def _name_refusals(key: str, name: str, allowed: Iterable[str], denied: Iterable[str]) -> Iterator[str]:
    if not any(name_matches(glob, name) for glob in allowed):
        yield f"delivery.allow.{key} does not have {printable(name)}"
    for glob in denied:
        if name_matches(glob, name) or name_matches(folded(glob), folded(name)):
            yield f"delivery.deny.{key} has {glob}"


def _id_refusals(key: str, number: int, allowed: Sequence[str], denied: Sequence[str]) -> Iterator[str]:
    if not within(_ranges(tuple(allowed)), number):
        yield f"delivery.allow.{key} does not have {number}"
    if within(_ranges(tuple(denied)), number):
        yield f"delivery.deny.{key} has {number}"


@lru_cache(maxsize=64)
def _ranges(texts: tuple[str, ...]) -> tuple[Range, ...]:
    return tuple(KEYS["uids"](texts)) if texts else ()


def _above(path: str) -> list[str]:
    names = path.split("/")[1:-1]
    return ["/" + "/".join(names[:depth]) for depth in range(1, len(names) + 1)]


def _folded_path(path: str) -> str:
    # Name by name: what folds to a slash divides no path.
    return "/".join(folded(name).replace("/", "\0") for name in path.split("/"))
