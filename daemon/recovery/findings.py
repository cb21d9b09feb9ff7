"""What can be wrong between queue and spool: one table, and the pure decisions about a row and its file.

A name never changes its meaning. `docs/recovery.md` is generated from the table.
"""

from dataclasses import dataclass
from typing import Final

from daemon.model.task import FINISHED, State, Task
from daemon.spool import FOOTER_BYTES, Found, Mark


@dataclass(frozen=True, slots=True)
class FindingKind:
    """One row of the table of findings."""

    #: Stable, machine-readable name.
    name: str
    #: A sentence: what is wrong.
    title: str
    #: A sentence: what is done about it.
    repair: str
    #: Sentences: what is left to a person.
    advice: str


def _table(*rows: tuple[str, str, str, str]) -> dict[str, FindingKind]:
    return {row[0]: FindingKind(*row) for row in rows}


#: The table. Keys are the stable names.
FINDINGS: Final[dict[str, FindingKind]] = _table(
    # --- a shard's database -------------------------------------------------------------------------------
    ("queue_damaged", "A shard's database is damaged, or has something in it that this program did not make.",
     "It is moved to lost+found and rebuilt from the spool. Lost are then the messages to webhooks that were not sent, "
     "and which webhook is disabled.",
     "Check the disk, or find out who made what the message names. Ask again for what people had asked of tasks and "
     "was not done; retry or release with --force the dead letters and held uploads whose bytes are still wanted."),
    ("queue_emptied", "A shard's database is new although there are uploads in the spool.",
     "It is filled from the spool before its worker begins.",
     "Find out what removed it: nothing but the service may change the state directory. Then do as for "
     "queue_damaged."),
    ("queue_unreadable", "A shard's database cannot be read or written just now.",
     "Nothing: whether it is sound is not known.",
     "Mend what the message names: room, inodes, permissions, the disk. Then run fsck again."),
    ("name_taken", "Something that is no file of the service's own has the name of one, beside a shard's database.",
     "It is removed; a directory is moved to lost+found, or gets another name where that is not allowed.",
     "Find out who made it: nothing but the service may change the state directory."),
    ("log_lost", "A worker died and the write-ahead log of its database is gone.",
     "The spool is compared with the queue before the worker begins.",
     "Find out what removed data.db-wal, which is a part of the database. Some files may be delivered once more."),
    ("move_unfinished", "Moving the queue to another number of shards has begun and is not finished.",
     "Whoever comes next finishes it: a worker at its start, or fsck --repair.",
     "Start the workers, all with the same queue.shards; or stop the service and run fsck --repair."),
    # --- a row --------------------------------------------------------------------------------------------
    ("bytes_missing", "The bytes of a task are not in the spool.",
     "It becomes a dead letter.",
     "Look for them in lost+found, or ask the sender for the file again; then delete the dead letter."),
    ("row_damaged", "A row of the queue cannot be read.",
     "It is written anew from the file in the spool; without one it becomes a dead letter.",
     "Check the disk. Of a dead letter without bytes, what the row held is in lost+found: ask for the file again."),
    ("row_misplaced", "A row is in the database of another shard.",
     "It is moved while no worker and no API runs.",
     "Stop the service, run fsck --repair, and start it again: no worker does this by itself."),
    ("counts_wrong", "The counts that are kept of the rows are not those of the rows.",
     "They are counted anew.",
     "Run fsck --repair while the worker is stopped; until then the backlog may be taken for another."),
    ("row_outdated", "A row says that an upload waits, and the name of its file that it is a dead letter, or held.",
     "The name is right: the upload is a dead letter again, or held, with the code order_unknown.",
     "Nothing after a crash. Otherwise see what became of data.db-wal: a part of the queue is lost. Retry or release "
     "with --force if these bytes are wanted."),
    ("mark_wrong", "The name of a file does not say what its row says.",
     "The file is renamed: the row is right.",
     "Nothing. A crash can leave such a name."),
    ("bytes_left", "The bytes of a finished task are still in the spool.",
     "They are removed like those of any finished task.",
     "Nothing. A crash of the machine can leave them."),
    # --- a file in the spool ------------------------------------------------------------------------------
    ("row_missing", "An upload in the spool has no row.",
     "It is queued again under its id; a dead letter and a held one stay what they were.",
     "Nothing. Its API died before it could answer, or the database is new; the sender may send it again."),
    ("row_missing_outdated", "An upload in the spool has no row, and a newer one to the same path is known.",
     "The file is moved to lost+found.",
     "Nothing, unless the older bytes are wanted. They are in lost+found."),
    ("file_damaged", "A file in the spool is not whole, or holds another upload.",
     "The file is moved to lost+found; with a row it stays, and the task becomes a dead letter.",
     "Check the disk and ask the sender for the file again; then delete the dead letter."),
    ("file_misplaced", "A file is in the bucket of another instance.",
     "It is moved to its own bucket; a second copy is moved to lost+found.",
     "Find out what moved it: nothing but the service may change the state directory."),
    ("file_stray", "Something in the spool is no upload.",
     "It is moved to lost+found.",
     "See what it is; if nobody needs it, remove it from lost+found. Where it may not be moved, as another user's "
     "directory, only root can remove it."),
    ("file_unreadable", "The disk cannot read a file of the spool.",
     "Nothing: it is tried again at the next comparison.",
     "Check the disk. If the file cannot be read any more, ask the sender for it again."),
    ("bucket_unreadable", "A directory of the spool cannot be read.",
     "Nothing: it is tried again at the next comparison, and the others go on.",
     "Check the disk; give the directory its owner and its permissions again (where systemd runs the service: "
     "systemd-tmpfiles --create incus-courier.conf)."),
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong, or was."""

    #: A name from the table.
    name: str
    #: None for what belongs to no shard.
    shard: int | None = None
    task_id: str | None = None
    #: Which file or what exactly, for people.
    detail: str = ""
    repaired: bool = False


def mark_of(state: State) -> Mark | None:
    """What the file's name says of a task in that state; None when it does not matter any more."""
    if state in FINISHED:
        return None
    return {State.FAILED: Mark.FAILED, State.HELD: Mark.HELD}.get(state, Mark.PENDING)


#: The state of an upload without a row, by its mark.
STATE_OF: Final = {Mark.PENDING: State.QUEUED, Mark.FAILED: State.FAILED, Mark.HELD: State.HELD}


def judge(task: Task, found: Found | None, meta_bytes: int, *, trust_size: bool = True) -> str | None:
    """The name of what is wrong between a task and its file (None: there is none), or None.

    `file_damaged` is only a suspicion, by the size (or always, unless `trust_size`): the caller reads the file before
    it says so. What is being pushed is not judged, nor a delivery that is only looked at again, nor a dead letter for
    what it says of itself.
    """
    if task.state is State.PUSHING or (task.recheck and found is None):
        return None
    if task.state in FINISHED:
        return "bytes_left" if found is not None and not task.spooled else None
    if found is None:
        return None if _says(task, "bytes_missing") else "bytes_missing"
    if found.mark is not mark_of(task.state):
        # A mark is written before the row: what a waiting row does not know of its file came after it.
        waits = mark_of(task.state) is Mark.PENDING and not task.recheck
        return "row_outdated" if waits else "mark_wrong"
    whole = trust_size and found.size == task.upload.size + meta_bytes + FOOTER_BYTES
    return None if whole or _says(task, "bytes_damaged") else "file_damaged"


def _says(task: Task, code: str) -> bool:
    return task.state is State.FAILED and task.error_code == code
