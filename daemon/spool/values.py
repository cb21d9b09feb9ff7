"""What is said of uploads in the spool: plain values, whatever keeps them."""

from enum import Enum
from typing import Final, NamedTuple

from daemon.errors import Undelivered
from daemon.model.upload import Upload, is_task_id


class Mark(Enum):
    """What a file's name says of its upload: a rebuild revives neither dead letters nor held ones."""

    PENDING = ""
    FAILED = ".failed"
    HELD = ".held"


#: What is known of an upload that only its mark says something of.
STOPPED: Final = {Mark.FAILED: "It had failed before; why, and what came after, is lost.",
                  Mark.HELD: "It was held before; by whom, and what came after, is lost."}


class Stopped(Undelivered):
    """Raised for an upload that is to be delivered as its row says, and not as its file's name says (`mark`).

    A worker marks the file before it writes the row: the row is older than the name, and what came after is lost.
    """

    def __init__(self, mark: Mark) -> None:
        super().__init__("order_unknown", STOPPED[mark])
        self.mark: Final = mark


class Name(NamedTuple):
    """One thing in the spool. `mark` is None for a name that is no upload's."""

    bucket: int
    file: str
    task_id: str
    mark: Mark | None


class Found(NamedTuple):
    """What keeps an upload: its mark, and its size in bytes: the upload, its description, and FOOTER_BYTES.

    Where it is kept with others, and is not told apart at once, it is the size of them all.
    """

    mark: Mark
    size: int


class Undecided(Exception):
    """Raised for an upload whose writer has not decided about its row yet: leave it alone."""


def name_of(bucket: int, file: str) -> Name:
    """What a file's name in a bucket says."""
    task_id, dot, suffix = file.partition(".")
    marks = {mark.value: mark for mark in Mark}
    return Name(bucket, file, task_id, marks.get(dot + suffix) if is_task_id(task_id) else None)


def same_upload(found: Upload, wanted: Upload) -> bool:
    """True when two descriptions are of one upload."""
    return (found.task_id, found.destination, found.size, found.sha256) == (
        wanted.task_id, wanted.destination, wanted.size, wanted.sha256)
