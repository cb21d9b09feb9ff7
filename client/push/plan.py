"""Which files are to be sent, and where each goes: decided before anything is.

Guarantees: each file that is found has a legal destination of its own. What cannot be sent is named, with the reason.
The order is that of the command line, and of the names below each folder.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from client.push.target import PushTarget
from daemon.errors import ERRORS, Rejected
from daemon.model.names import check_path, printable
from daemon.model.upload import is_mode
from daemon.process.exit_status import Misused

#: Stands for standard input.
STDIN: Final = "-"
#: Bits of a mode that are sent: as with `incus file push`, no set-id and sticky bits.
_PERMISSIONS: Final = 0o777


class Links(Enum):
    """Which symbolic links are followed."""

    NEVER = "P"
    #: Those that the command line names.
    NAMED = "H"
    ALWAYS = "L"


def chosen_links(*, never: bool, named: bool, always: bool) -> Links | None:
    """What the letters -P, -H and -L say; raises Misused for more than one."""
    chosen = [links for links, given in zip(Links, (never, named, always), strict=True) if given]
    if len(chosen) > 1:
        raise Misused("Give one of -P, -H and -L.")
    return chosen[0] if chosen else None


def parse_mode(text: str | None) -> int | None:
    """Permission bits, of octal digits; raises Misused for anything else."""
    if text is not None and not is_mode(text):
        raise Misused(f"{printable(text)} is no mode: give octal digits, for example 0640.")
    return None if text is None else int(text, 8)


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """What was typed, but for files and destination."""

    recursive: bool = False
    mkdirs: bool = False
    uid: int | None = None
    gid: int | None = None
    #: Permission bits for all files; None: each one's own.
    mode: int | None = None
    links: Links | None = None

    @property
    def follows(self) -> Links:
        """Which links are followed: without a letter, as `incus file push` does."""
        return self.links or (Links.NEVER if self.recursive else Links.NAMED)

    @property
    def makes_directories(self) -> bool:
        """Whether missing directories are made; a folder's own always are."""
        return self.mkdirs or self.recursive


@dataclass(frozen=True)
class PlannedFile:
    """One file and its destination."""

    #: As it was typed or found; STDIN for standard input.
    source: str
    #: Absolute and legal path in the instance.
    to: str
    #: In bytes, as it was found; None when it is not known.
    size: int | None
    #: Permission bits to ask for; None: the service's default.
    mode: int | None
    #: Whether a link is followed that stands in its place.
    follow: bool = True


@dataclass(frozen=True)
class LeftOut:
    """What was named or found, and is not sent."""

    source: str
    code: str
    message: str

    @property
    def is_skipped(self) -> bool:
        """True when there is nothing to send, so that nothing is missing afterwards but the folder itself."""
        return self.code == "empty_directory"


@dataclass
class PushPlan:
    """What is to be done."""

    files: list[PlannedFile] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    #: Of these, what the command line itself names: then nothing is sent at all.
    wrong: list[LeftOut] = field(default_factory=list)


def plan(sources: Sequence[str], target: PushTarget, options: PushOptions) -> PushPlan:
    """What `sources` are, and where each file goes; raises Misused when the command makes no sense."""
    _check(sources, target, options)
    made = PushPlan()
    for source in sources:
        if source == STDIN:
            made.files.append(PlannedFile(STDIN, target.path, None, options.mode))
        else:
            _plan_named(source, target, options, made)
    _check_each_has_its_own(made.files)
    return made


def _check(sources: Sequence[str], target: PushTarget, options: PushOptions) -> None:
    if not sources:
        raise Misused("Name at least one file, and then where it goes: push FILE... [REMOTE:]INSTANCE/PATH.")
    if STDIN in sources:
        if len(sources) > 1 or options.recursive:
            raise Misused("Standard input is pushed alone.")
        if target.is_directory:
            raise Misused("Standard input has no name: give the whole path.")
    if len(sources) > 1 and not (target.is_directory or options.recursive):
        raise Misused("Several files need a directory: end the destination with a slash.")


def _plan_named(source: str, target: PushTarget, options: PushOptions, made: PushPlan) -> None:
    follow = options.follows is not Links.NEVER
    try:
        found = os.stat(source, follow_symlinks=follow)
    except OSError as error:
        made.wrong.append(_unreadable(source, error))
        return
    if stat.S_ISDIR(found.st_mode) and not options.recursive:
        made.wrong.append(_left_out(source, "is_directory"))
        return
    name = os.path.basename(os.path.normpath(source))
    # A folder without a name of its own gives its contents alone.
    below = "" if name in {"", ".", ".."} else name
    to = target.below(below) if target.is_directory or options.recursive else target.path
    if stat.S_ISDIR(found.st_mode):
        _walk(source, to, found, options, made)
        return
    if problem := _unfit(source, to, found):
        made.wrong.append(problem)
    else:
        made.files.append(_file(source, to, found, options, follow=follow))


def _walk(top: str, top_to: str, found: os.stat_result, options: PushOptions, made: PushPlan) -> None:
    """All below a folder. No recursion: folders may be nested deeper than Python's calls."""
    follow = options.follows is Links.ALWAYS
    waiting = deque([(top, top_to, frozenset({_identity(found)}))])
    while waiting:
        folder, folder_to, above = waiting.popleft()
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            made.left_out.append(_unreadable(folder, error))
            continue
        if not names:
            made.left_out.append(_left_out(folder, "empty_directory"))
        for name in names:
            source, to = os.path.join(folder, name), os.path.join(folder_to, name)
            try:
                found = os.stat(source, follow_symlinks=follow)
            except OSError as error:
                made.left_out.append(_unreadable(source, error))
                continue
            if stat.S_ISDIR(found.st_mode):
                if _identity(found) in above:
                    made.left_out.append(_left_out(source, "link_loop"))
                else:
                    waiting.append((source, to, above | {_identity(found)} if follow else above))
            elif problem := _unfit(source, to, found):
                made.left_out.append(problem)
            else:
                made.files.append(_file(source, to, found, options, follow=follow))


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _file(source: str, to: str, found: os.stat_result, options: PushOptions, *, follow: bool) -> PlannedFile:
    mode = found.st_mode & _PERMISSIONS if options.mode is None else options.mode
    return PlannedFile(source, to, found.st_size, mode, follow)


def _unfit(source: str, to: str, found: os.stat_result) -> LeftOut | None:
    """Why something cannot be sent; None when it can."""
    if stat.S_ISLNK(found.st_mode):
        return _left_out(source, "link_not_followed")
    if not stat.S_ISREG(found.st_mode):
        return _left_out(source, "not_a_file")
    try:
        check_path(to)
    except Rejected as error:
        return LeftOut(source, error.code, error.detail)
    return None


def _left_out(source: str, code: str) -> LeftOut:
    return LeftOut(source, code, ERRORS[code].title)


def _unreadable(source: str, error: OSError) -> LeftOut:
    if error.errno in {errno.ENOENT, errno.ELOOP} and os.path.islink(source):
        return LeftOut(source, "unreadable_file", "The link leads nowhere.")
    return LeftOut(source, "unreadable_file", f"{error.strerror}.")


def _check_each_has_its_own(files: Sequence[PlannedFile]) -> None:
    for first, second in _pairs(files):
        raise Misused(f"{printable(first)} and {printable(second)} would both become the same file.")


def _pairs(files: Sequence[PlannedFile]) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for file in files:
        if file.to in seen:
            yield seen[file.to], file.source
        seen[file.to] = file.source
