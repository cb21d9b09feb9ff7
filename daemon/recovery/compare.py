"""Comparing the queue of one shard with its buckets of the spool, in small steps, and putting right what differs.

A step is one `next()` of the iterators returned here; between two of them anything may happen, so nothing is
acted on that was not looked at in the same step. With `repair`, only for the holder of the shard's lock.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from daemon.errors import Rejected
from daemon.log import log
from daemon.model.task import FINISHED, State, Task
from daemon.model.upload import BUCKETS, Destination, Upload, bucket_of, is_task_id
from daemon.recovery.findings import STATE_OF, Finding, judge, mark_of
from daemon.spool import STOPPED, CheckedSpool, Mark, Name, Undecided, name_of, same_upload
from daemon.state.room import NO_ROOM
from daemon.task_queue.doctor import Doctor, Restored, Row

#: Names, or rows, looked at in one step, unless asked otherwise: a few milliseconds.
STEP: Final = 100


class Comparison:
    """One shard's queue beside its part of the spool."""

    def __init__(
        self, queue: Doctor, spool: CheckedSpool, *, shards: int, supersede: bool,
        report: Callable[[Finding], None], repair: bool = True, thorough: bool = False, step: int = STEP,
    ) -> None:
        """`thorough`: read the end of every file instead of comparing its size. `step`: names or rows in one step."""
        self._queue = queue
        self._spool = spool
        self._shards = shards
        self._supersede = supersede
        self._report = report
        self._repair = repair
        self._thorough = thorough
        self._step = step
        #: Buckets that could not be read when they were last looked at.
        self._unreadable: set[int] = set()

    def buckets(self) -> range:
        """The buckets of this shard."""
        return range(self._queue.shard, BUCKETS, self._shards)

    def everything(self) -> Iterator[None]:
        """Every file, then every row."""
        for bucket in self.buckets():
            yield from self.files(bucket)
        yield from self.rows()

    def changed_at(self, bucket: int) -> float:
        """When a name in the bucket last came or went, in seconds since the epoch."""
        return self._spool.changed_at(bucket)

    def _found(self, name: str, task_id: str | None, detail: str, *, repaired: bool) -> None:
        self._report(Finding(name=name, shard=self._queue.shard, task_id=task_id, detail=detail, repaired=repaired))

    # --- files -------------------------------------------------------------------------------------------

    def files(self, bucket: int, since_id: str = "") -> Iterator[None]:
        """The files of a bucket whose ids are not before `since_id`, and everything that is no upload's."""
        self._unreadable.discard(bucket)
        try:
            yield from self._files(bucket, since_id)
        except OSError as error:
            self._skip(bucket, error)

    def _skip(self, bucket: int, error: OSError) -> None:
        """Say, once, that a bucket cannot be read, and go on without it. Raises the error where there is no room."""
        reason = _in_the_way(error)
        if bucket not in self._unreadable:
            self._unreadable.add(bucket)
            self._found("bucket_unreadable", None, f"{bucket:02x}: {reason}", repaired=False)

    def _files(self, bucket: int, since_id: str) -> Iterator[None]:
        names = self._spool.scan(bucket)
        missing: list[str] = []
        while step := list(islice(names, self._step)):
            uploads = [name for name in step if name.mark is not None and name.task_id >= since_id]
            for name in step:
                if name.mark is None:
                    self._put_aside("file_stray", name)
            missing += self._without_row(uploads)
            yield
        # In the order of their acceptance, so that of one path the newest comes last.
        waiting = iter(sorted(missing))
        while some := list(islice(waiting, self._step)):
            self._orphans([name_of(bucket, file) for file in some])
            yield

    def _without_row(self, names: list[Name]) -> list[str]:
        instances = self._queue.instances_of([name.task_id for name in names]) if names else {}
        missing = []
        for name in names:
            key = instances.get(name.task_id)
            if key is None:
                missing.append(name.file)
            elif bucket_of(key) != name.bucket:
                # Either the file is in a wrong place, or the row says so: the file tells.
                self._in_place(name)
        return missing

    def _in_place(self, name: Name) -> Upload | None:
        """The upload of a file, if it is whole and in its bucket; otherwise it is put right, or left alone."""
        try:
            upload = self._spool.examine(name)
        except (Undecided, FileNotFoundError):
            return None
        except ValueError as error:
            self._put_aside("file_damaged", name, str(error))
            return None
        except OSError as error:
            where = f"{name.bucket:02x}/{name.file}"
            self._found("file_unreadable", name.task_id, f"{where}: {error.strerror}", repaired=False)
            return None
        if upload.destination.bucket == name.bucket:
            return upload
        self._misplaced(name, upload.destination.bucket)
        return None

    def _put_aside(self, found: str, name: Name, why: str = "") -> None:
        """Move a file to lost+found if this is a repair, and report what was found and where the file is now."""
        where = self._spool.where(name)
        obstacle = ""
        if self._repair:
            try:
                where = self._spool.set_aside(name)
            except OSError as error:
                obstacle = _in_the_way(error)
        detail = ": ".join(part for part in (where, why, obstacle) if part)
        self._found(found, name.task_id if name.mark else None, detail, repaired=self._repair and not obstacle)

    def _misplaced(self, name: Name, bucket: int) -> None:
        if self._repair and self._spool.move(name, bucket):
            self._found("file_misplaced", name.task_id, f"{name.bucket:02x}/{name.file}", repaired=True)
        else:
            self._put_aside("file_misplaced", name)

    def _orphans(self, names: list[Name]) -> None:
        """Uploads that had no row when they were looked for: the lock is tried first, then the row is looked for."""
        found = [(name, upload) for name in names if (upload := self._in_place(name))]
        if found:
            self._restore(found)

    def _restore(self, found: list[tuple[Name, Upload]]) -> None:
        if not self._repair:
            self._report_orphans(found)
            return
        uploads = [(upload, STATE_OF[name.mark or Mark.PENDING]) for name, upload in found]
        answers = self._queue.restore(uploads, supersede=self._supersede)
        for (name, upload), restored in zip(found, answers, strict=True):
            if restored is Restored.DONE:
                self._found("row_missing", upload.task_id, _where(upload.destination), repaired=True)
            elif restored is Restored.OUTDATED:
                self._put_aside("row_missing_outdated", name)

    def _report_orphans(self, found: list[tuple[Name, Upload]]) -> None:
        known = self._queue.instances_of([upload.task_id for _, upload in found])
        for _, upload in found:
            if upload.task_id not in known:
                outdated = self._supersede and self._queue.newer_known(upload)
                self._found("row_missing_outdated" if outdated else "row_missing", upload.task_id,
                            _where(upload.destination), repaired=False)

    # --- rows --------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[None]:
        """Every row, in order."""
        after = 0
        while rows := self._queue.rows(after, self._step):
            for row in rows:
                self._row(row)
            after = rows[-1].order
            yield
        if self._thorough and not self._queue.counts_fit():
            if self._repair:
                self._queue.count_again()
            self._found("counts_wrong", None, "", repaired=self._repair)

    def _row(self, row: Row) -> None:
        if row.task is None:
            self._damaged(row)
            return
        destination = row.task.destination
        if destination.bucket % self._shards != self._queue.shard:
            self._found("row_misplaced", row.task_id, _where(destination), repaired=False)
            return
        if destination.bucket in self._unreadable:
            return
        try:
            self._compare(row, row.task)
        except OSError as error:
            self._skip(destination.bucket, error)

    def _compare(self, row: Row, task: Task) -> None:
        """Compare a row with its file. Raises OSError when its bucket cannot be read."""
        found = self._spool.look(task.destination.bucket, row.task_id, mark_of(task.state) or Mark.PENDING)
        wrong = judge(task, found, row.meta_bytes, trust_size=not self._thorough)
        # A reader may have met a row that its worker was just changing.
        if wrong is not None and (self._repair or self._queue.row(row.order) == row):
            self._wrong(wrong, row, task, Mark.PENDING if found is None else found.mark)

    def _wrong(self, wrong: str, row: Row, task: Task, mark: Mark) -> None:
        detail = _where(task.destination)
        if wrong == "file_damaged":
            try:
                reason = self._what_is_wrong_with_file(task.upload, mark)
            except OSError as error:
                self._found("file_unreadable", task.task_id, f"{detail}: {error.strerror}", repaired=False)
                return
            if reason is None:
                return
            detail = f"{detail}: {reason}"
        obstacle = ""
        if self._repair:
            try:
                self._put_right(wrong, row, task.upload, mark, detail)
            except OSError as error:
                obstacle = f": {_in_the_way(error)}"
        self._found(wrong, task.task_id, detail + obstacle, repaired=self._repair and not obstacle)

    def _put_right(self, wrong: str, row: Row, upload: Upload, mark: Mark, detail: str) -> None:
        if wrong == "bytes_left":
            self._queue.note_spooled(row.order)
        elif wrong == "row_outdated":
            self._queue.stop(row.order, row.state, STATE_OF[mark], STOPPED[mark])
        elif wrong == "mark_wrong":
            self._spool.mark(upload, mark_of(State(row.state)) or Mark.PENDING)
        else:
            code = "bytes_missing" if wrong == "bytes_missing" else "bytes_damaged"
            self._spool.mark(upload, Mark.FAILED)
            self._queue.bury(row.order, row.state, code, detail)
            log("push.failed", task_id=upload.task_id, instance=upload.destination.instance, code=code,
                path=upload.destination.path, detail=detail, client=upload.client,
                traceparent=upload.traceparent)

    def _what_is_wrong_with_file(self, upload: Upload, mark: Mark) -> str | None:
        name = Name(upload.destination.bucket, upload.task_id + mark.value, upload.task_id, mark)
        try:
            found = self._spool.examine(name)
        except (Undecided, FileNotFoundError):
            return None
        except ValueError as error:
            return str(error)
        return None if same_upload(found, upload) else "It holds another upload."

    # --- damaged rows ------------------------------------------------------------------------------------

    def _damaged(self, row: Row) -> None:
        if not self._repair:
            self._found("row_damaged", row.task_id, f"order {row.order}", repaired=False)
            return
        try:
            self._found("row_damaged", row.task_id, self._mend(row), repaired=True)
        except Undecided:
            return
        except OSError as error:
            self._found("row_damaged", row.task_id, f"order {row.order}: {_in_the_way(error)}", repaired=False)

    def _mend(self, row: Row) -> str:
        """Write a damaged row anew; return what became of it. Raises Undecided and OSError."""
        found = self._file_of(row)
        if found is None:
            return self._lay_to_rest(row)
        upload, mark = found
        state = self._queue.mend(row.order, row.instance_key, upload, *_state_of_mended(row, mark))
        self._spool.mark(upload, mark_of(state) or mark)
        return f"{_where(upload.destination)}: {state.label}"

    def _file_of(self, row: Row) -> tuple[Upload, Mark] | None:
        """The upload of a damaged row, from the spool; None when there is none that is whole."""
        if not is_task_id(row.task_id):
            return None
        own = bucket_of(row.instance_key)
        for bucket in (own, *(number for number in self.buckets() if number != own)):
            found = self._spool.look(bucket, row.task_id)
            if found is None:
                continue
            try:
                upload = self._spool.examine(name_of(bucket, row.task_id + found.mark.value))
            except (ValueError, FileNotFoundError):
                return None
            return (upload, found.mark) if upload.destination.bucket == bucket else None
        return None

    def _lay_to_rest(self, row: Row) -> str:
        """Keep what is left of a row without bytes in lost+found; put a dead letter there if it is known whose."""
        note = self._spool.keep_note(f"row-{self._queue.shard}-{row.order}", self._queue.raw(row.order))
        upload = _stand_in(row)
        if upload is None or row.state in FINISHED:
            self._queue.drop(row.order)
        else:
            self._queue.mend(row.order, row.instance_key, upload, State.FAILED, "invalid_row",
                             f"The row was damaged; see {note}")
        return note


def _where(destination: Destination) -> str:
    return f"{destination.instance_key}{destination.path}"


def _in_the_way(error: OSError) -> str:
    """Why a file stays as it is, for people. Raises the error for want of room: the caller makes some."""
    if error.errno in NO_ROOM:
        raise error
    return error.strerror or str(error)


def _state_of_mended(row: Row, mark: Mark) -> tuple[State, str | None, str | None]:
    """The state of a row that is written anew, and its error: what the row still says, else what the mark says.

    A worker that met the damaged row has made it a dead letter without marking its file.
    """
    if row.state in FINISHED:
        return State(row.state), None, None
    state = STATE_OF[mark]
    code = row.error_code or "order_unknown" if state is State.FAILED else None
    return state, code, "The row was damaged and has been mended."


def _stand_in(row: Row) -> Upload | None:
    """An upload that says as much as is still known of a row without bytes; None if that is not enough."""
    parts = row.instance_key.split("/")
    if len(parts) != 3 or not is_task_id(row.task_id):
        return None
    destination = Destination(parts[0], parts[1], parts[2], f"/unknown/{row.task_id}")
    upload = Upload(task_id=row.task_id, destination=destination, size=0, sha256="0" * 64, client=row.client)
    try:
        upload.check()
    except (ValueError, Rejected):
        return None
    return upload
