"""Delivery by the files API, where there is no SFTP: exact and verified, but the file is written in place.

The API writes into the file that is there, and applies mode and owner to new files only. So a file that is to
have another mode or owner is removed and made anew, empty and with the right ones, before its bytes come.
The API does not tell a device or a pipe from a file, and cannot set setuid and setgid.
"""

import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from daemon.errors import Cause, Undelivered
from daemon.model.names import printable
from daemon.spool import Source
from worker.targets import source as spool
from worker.targets.attributes import (
    MAX_LINKS,
    ROOT,
    Attributes,
    Wanted,
    receipt_for,
    refuse_unless_allowed,
    refuse_unless_exact,
    refuse_unless_replaceable,
    refuse_unless_shallow,
    refuse_unless_trusted,
    wanted,
    wanted_directory,
    wanted_instead,
    where,
)
from worker.targets.base import Delivery, Ended, Parcel, Receipt, one_by_one
from worker.targets.incus.rest import Files

_PIECE_BYTES: Final = 256 * 1024
#: As receipts name it.
_WAY: Final = "files"


class FilesApiSession:
    """A Session by the files API of one instance; see worker.targets.base for what it promises."""

    def __init__(self, files: Files, disconnect: Callable[[], None]) -> None:
        """Deliver through `files`; `disconnect` lets go of what is beneath it and never raises."""
        self._files = files
        self._disconnect = disconnect
        self._broken = False
        #: This way makes no part files.
        self.left_part = False

    @property
    def broken(self) -> bool:
        """True when the connection can no longer be used."""
        return self._broken

    def close(self) -> None:
        """End the connection. Never raises."""
        self._broken = True
        self._disconnect()

    def deliver(self, delivery: Delivery, source: Source, before_rename: Callable[[], None]) -> Receipt:
        """Put the bytes of `source` at the destination, in place; see worker.targets.base.Session."""
        try:
            return self._deliver(delivery, source, before_rename)
        except Undelivered as error:
            # A connection that ended may hold the rest of an old answer.
            self._broken = self._broken or error.kind.cause in {Cause.LOST, Cause.SILENT}
            raise

    def deliver_all(self, parcels: Sequence[Parcel]) -> Iterator[Ended]:
        """Deliver one file after the other; see worker.targets.base.Carrier."""
        return one_by_one(self, parcels)

    def sweep(self, delivery: Delivery) -> bool:
        """Remove the part file that a killed attempt by SFTP left; see worker.targets.base.Session."""
        path, _ = self._follow(delivery)
        places = {place for file in (delivery.destination.path, path) for place in PurePosixPath(file).parents}
        apart = delivery.staging_name
        parts = [each.part_name for each in delivery.by_either_name()]
        removed = [self._remove(str(place / name)) for place in places for name in (f"{apart}/{apart}", apart, *parts)]
        return any(removed)

    def link_at(self, path: str) -> str | None:
        """Where the symbolic link at `path` points; see worker.targets.incus.bound_session.SeeingCarrier."""
        found = self._files.look(path)
        return self._files.link(path) if found is not None and found.is_link else None

    def read_file(self, path: str) -> bytes | None:
        """What is in the small file at `path`; see worker.targets.incus.bound_session.SeeingCarrier."""
        found = self._files.look(path)
        return b"".join(self._files.read(path)) if found is not None and found.is_file else None

    def _remove(self, path: str) -> bool:
        if self._files.look(path) is None:
            return False
        self._files.delete(path)
        return True

    def _deliver(self, delivery: Delivery, source: Source, before_rename: Callable[[], None]) -> Receipt:
        path, existing = self._follow(delivery)
        refuse_unless_replaceable(delivery, existing)
        want = wanted(delivery, existing)
        if delivery.path_rule is not None:
            path = self._resolved(path)
            refuse_unless_allowed(delivery, path.encode("utf-8", "surrogateescape"))
        anew = existing is not None and (not want.met_by(existing) or delivery.set_id_rule is not None)
        if anew:
            # Also where set-id bits matter: they are not shown, and what is made anew has none.
            want = wanted_instead(delivery, existing)
        if delivery.recheck and existing and self._is_there(path, delivery, existing, want):
            return receipt_for(existing, _WAY, unchanged=True, whole_mode=False)
        if want.special:
            raise Undelivered("permission_denied", f"{where(delivery)}: setuid and setgid can only be set by SFTP")
        if existing is None:
            self._find_parent(posixpath.dirname(path), delivery)
        self._refuse_unless_guarded(posixpath.dirname(path), delivery)
        spool.rewind(source)
        before_rename()
        self._write(path, delivery, source, want, None if anew else existing, anew=anew)
        found = self._verify(path, delivery, want, source)
        # A file that was there before may have set-id bits, which the API does not show; one that was made has none.
        return receipt_for(found, _WAY, whole_mode=existing is None or anew)

    def _follow(self, delivery: Delivery) -> tuple[str, Attributes | None]:
        path = delivery.destination.path
        for _ in range(MAX_LINKS):
            found = self._files.look(path)
            if found is None or not found.is_link or delivery.symlinks == "replace":
                return path, found
            refuse_unless_trusted(delivery, found, self._directory_of(path))
            path = self._files.link(path)
        raise Undelivered("too_many_links", f"{where(delivery)}: more than {MAX_LINKS} symbolic links")

    def _directory_of(self, path: str) -> Attributes:
        found = self._directory(posixpath.dirname(path))
        if found is None:
            raise Undelivered("parent_not_found", f"the directory of {printable(path)} is gone")
        # The API hides the sticky bit: where everybody may write, it may be there.
        return replace(found, mode=found.mode | stat.S_ISVTX)

    def _directory(self, path: str) -> Attributes | None:
        """What the directory at `path` is, links to it followed; None if there is none."""
        # The dot makes the server follow a link to a directory.
        return self._files.look(f"{path}/.")

    def _find_parent(self, directory: str, delivery: Delivery) -> None:
        missing = []
        while directory != "/" and self._directory(directory) is None:
            if not delivery.mkdirs:
                raise Undelivered("parent_not_found", f"{where(delivery)}: there is no {directory}")
            refuse_unless_shallow(delivery, directory.count("/"))
            missing.append(directory)
            directory = posixpath.dirname(directory)
        for directory in reversed(missing):
            self._make(directory, delivery)

    def _refuse_unless_guarded(self, directory: str, delivery: Delivery) -> None:
        """Raise Undelivered('parent_not_guarded') where others than root can change a name on the way.

        The API opens a file, and sets its owner and mode, by path, one after the other: they could put a link there.
        """
        if not self._is_guarded(directory, MAX_LINKS):
            raise Undelivered("parent_not_guarded", f"{where(delivery)}: others can change {printable(directory)}")

    def _is_guarded(self, directory: str, links: int) -> bool:
        for path in [*reversed(PurePosixPath(directory).parents), PurePosixPath(directory)][1:]:
            found = self._files.look(str(path))
            if found is not None and found.is_link and found.uid == ROOT and links:
                rest = PurePosixPath(directory).relative_to(path)
                return self._is_guarded(posixpath.join(self._files.link(str(path)), rest), links - 1)
            if found is None or not found.keeps_names:
                return False
        return True

    def _make(self, directory: str, delivery: Delivery) -> None:
        self._refuse_unless_guarded(posixpath.dirname(directory), delivery)
        try:
            self._files.make_directory(directory, wanted_directory(delivery))
        except Undelivered:
            # Another push may have made it meanwhile.
            if self._directory(directory) is None:
                raise

    def _resolved(self, path: str) -> str:
        """The path with each link on the way resolved; its last name is left as it is."""
        *ahead, name = path.split("/")
        real, links = "/", 0
        while ahead:
            real = posixpath.normpath(posixpath.join(real, ahead.pop(0)))
            found = self._files.look(real)
            if found is not None and found.is_link:
                links += 1
                if links > MAX_LINKS:
                    raise Undelivered("too_many_links", f"more than {MAX_LINKS} symbolic links in {printable(path)}")
                real, ahead = "/", [*self._files.link(real).split("/"), *ahead]
        return posixpath.join(real, name)

    def _write(self, path: str, delivery: Delivery, source: Source, want: Wanted,
               existing: Attributes | None, *, anew: bool) -> None:
        if anew:
            self._files.delete(path)
        if existing is None:
            self._files.put(path, b"", want)
        if existing is not None or delivery.size:
            self._files.put(path, _Exactly(source, delivery.size) if delivery.size else b"", want)

    def _verify(self, path: str, delivery: Delivery, want: Wanted, source: Source) -> Attributes:
        found = self._files.look(path)
        if found is None:
            raise Undelivered("verify_failed", f"{where(delivery)}: it is not there after it was written")
        refuse_unless_exact(delivery, want, found)
        if delivery.verify == "digest":
            spool.refuse_unless_same(spool.digest(self._files.read(path)), source, delivery)
        return found

    def _is_there(self, path: str, delivery: Delivery, found: Attributes, want: Wanted) -> bool:
        if found.size != delivery.size or not want.met_by(found):
            return False
        return spool.digest(self._files.read(path)) == delivery.sha256


class _Exactly:
    """The first `size` bytes of a file, as requests takes them: with a length, to be read once."""

    def __init__(self, source: Source, size: int) -> None:
        self._pieces = spool.pieces(source, size, _PIECE_BYTES)
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return map(bytes, self._pieces)

