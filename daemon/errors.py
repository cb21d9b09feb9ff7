"""Every error the service can report, in one table, typed by what to do about it.

Guarantees: a code never changes its meaning; the table is the only place where a code, its HTTP status
and its advice are written down. `docs/errors.md` is generated from it.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Action(Enum):
    """What the one who meets the error does next."""

    #: Tell the client; keep nothing.
    REJECT = "reject"
    #: Try the same task again later; the attempt counts.
    RETRY = "retry"
    #: The other side is away: wait for it; nothing counts and nothing ages.
    WAIT = "wait"
    #: Trying again cannot help: keep the bytes for a person.
    DEAD_LETTER = "dead-letter"
    #: The process cannot go on: tell the administrator and exit.
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the table of errors."""

    #: Stable, machine-readable name.
    code: str
    action: Action
    #: HTTP status when a client meets it; 0 when no client ever does.
    status: int
    #: A sentence: what is wrong.
    title: str
    #: What to do about it.
    hint: str


def _table(*rows: tuple[str, Action, int, str, str]) -> dict[str, ErrorKind]:
    return {row[0]: ErrorKind(*row) for row in rows}


_R, _W, _D = Action.RETRY, Action.WAIT, Action.DEAD_LETTER

#: The table. Keys are the stable codes.
ERRORS: Final[dict[str, ErrorKind]] = _table(
    # --- a request that cannot be taken -------------------------------------------------------------------
    ("bad_instance", Action.REJECT, 400, "The instance name is missing or not legal.",
     "Use 1 to 63 of A-Z a-z 0-9 and -, no hyphen first or last, not digits alone."),
    ("bad_project", Action.REJECT, 400, "The project name is not legal.",
     "Use the name of an Incus project, without slashes or spaces."),
    ("unknown_remote", Action.REJECT, 400, "The remote is not configured.",
     "Name a remote that has a [remotes.NAME] section, or leave it out."),
    ("bad_path", Action.REJECT, 400, "The destination path is missing or not legal.",
     "Give an absolute, normalised UTF-8 path: no '..', no control characters, "
     "no component over 255 bytes, at most 4095 bytes."),
    ("bad_name", Action.REJECT, 400, "The destination is a directory and no file name came with it.",
     "Send X-Host-Path with the file's name, or give the whole path."),
    ("bad_mode", Action.REJECT, 400, "The file mode is not legal.", "Give octal digits, for example 0640."),
    ("bad_owner", Action.REJECT, 400, "The uid or gid is not legal.", "Give a number from 0 to 4294967294."),
    ("bad_flag", Action.REJECT, 400, "A yes/no value is not legal.", "Give true or false."),
    ("bad_query", Action.REJECT, 400, "A query parameter is unknown or not legal.", "See the README for the parameters."),
    ("bad_length", Action.REJECT, 400, "The length of the body is not stated consistently.",
     "Send Content-Length or chunked transfer encoding, not both."),
    ("bad_request", Action.REJECT, 400, "The request is not legal HTTP/1.1.",
     "Send one Host header and one length, no control characters, and percent-encode what is not ASCII in the address."),
    ("long_head", Action.REJECT, 431, "The head of the request is too long.", "Keep address and headers under 16 KiB."),
    ("unknown_coding", Action.REJECT, 501, "This transfer coding is not known here.", "Send Content-Length, or chunked alone."),
    ("wrapped_body", Action.REJECT, 415, "The body is not the file itself.",
     "Send the bytes of the file as they are: no form (as of curl -F), no Content-Encoding."),
    ("bad_condition", Action.REJECT, 412, "An upload cannot depend on what is in the instance.",
     "Leave If-Match, If-None-Match and If-Unmodified-Since out."),
    ("bad_range", Action.REJECT, 400, "A part of a file cannot be uploaded.",
     "Leave Content-Range out and send the whole file."),
    ("bad_digest", Action.REJECT, 400, "The digest header is not legal.",
     "Send sha-256=:BASE64: as in RFC 9530."),
    ("digest_mismatch", Action.REJECT, 400, "The body does not have the digest that was announced.",
     "Send it again; it was damaged on its way, or the digest is of something else."),
    ("bad_idempotency_key", Action.REJECT, 400, "The idempotency key is not legal.",
     "Give 1 to 255 visible ASCII characters."),
    ("idempotency_mismatch", Action.REJECT, 422, "This idempotency key was used for a different upload.",
     "Use a new key for a new upload."),
    ("incomplete_body", Action.REJECT, 400, "The body ended before the announced length.", "Send it again."),
    ("too_slow", Action.REJECT, 408, "The body came too slowly.", "Send it again over a faster line."),
    ("not_found", Action.REJECT, 404, "There is nothing here.", "See the README for the addresses."),
    ("task_not_found", Action.REJECT, 404, "There is no task with this id.",
     "It may have been finished and cleared; see retention.delivered_s."),
    ("unknown_host", Action.REJECT, 421, "The request is for a host that this service is not known as.",
     "Use an IP address or localhost, or have the name added to api.hosts."),
    ("cross_site", Action.REJECT, 403, "The request comes from a web page of another site.",
     "Send it from a program, or from a page of the same host; a proxy in between must leave the Host header as it is."),
    ("method_not_allowed", Action.REJECT, 405, "This address does not take this method.", "See the Allow header."),
    ("too_large", Action.REJECT, 413, "The upload is larger than this service takes.",
     "Send less, or raise limits.max_upload_bytes."),
    ("http_version", Action.REJECT, 505, "Only HTTP/1.1 is spoken here.", "Use HTTP/1.1."),
    ("no_room", Action.REJECT, 507, "There is no room on the disk for this upload.",
     "Try again later; the administrator can make room on the state directory's filesystem."),
    ("backlog_full", Action.REJECT, 503, "Too many uploads are waiting to be delivered.", "Try again later."),
    ("too_busy", Action.REJECT, 503, "Too many uploads are being received at once.",
     "Try again in a moment; see api.max_connections."),
    ("draining", Action.REJECT, 503, "The service is stopping.", "Try again in a moment."),
    ("storage_failed", Action.REJECT, 503, "The upload could not be stored; nothing of it was kept.",
     "Try again later; the administrator finds the reason in the journal."),
    ("queue_unreadable", Action.REJECT, 503, "The queue cannot be read or written at the moment.",
     "Try again later; the administrator finds the reason in the journal."),
    ("no_worker", Action.REJECT, 503, "A shard has no worker: what is uploaded is kept, and delivered when one starts.",
     "Start the worker."),
    ("outcome_unknown", Action.REJECT, 503, "Whether the upload was stored could not be decided.",
     "It will be delivered whole or not at all. Send it again if it must arrive; repeating is safe."),
    ("internal", Action.REJECT, 500, "The service made a mistake.", "Please report it with the log's lines."),
    # --- a delivery that did not work ---------------------------------------------------------------------
    ("incus_unreachable", _W, 0, "Incus does not answer.", "Start Incus; the tasks go on by themselves."),
    ("incus_refused", _W, 0, "Incus does not let this service in.",
     "Check the socket's group or the client certificate; the tasks go on by themselves."),
    ("agent_down", _W, 0, "The virtual machine's agent is not running.",
     "Start the machine or its agent; the tasks go on by themselves."),
    ("instance_stopped", _W, 0, "The instance is stopped.", "Start it; delivery.stopped = \"push\" does not wait."),
    ("cancelled", Action.REJECT, 0, "A person cancelled the task.", "Nothing to do."),
    ("shutdown", _W, 0, "The worker was told to stop.", "Nothing to do."),
    ("instance_not_found", _R, 0, "There is no such instance.", "Create it; the tasks go on as soon as it appears."),
    ("project_not_found", _R, 0, "There is no such project.", "Create it, name another, or cancel the task."),
    ("instance_refused", _R, 0, "Incus does not let this service into this instance.",
     "Give the client certificate access to the project."),
    ("connection_lost", _R, 0, "The connection to the instance was lost.", "Nothing to do."),
    ("instance_busy", _R, 0, "The instance is busy with another operation.", "Nothing to do."),
    ("target_full", _R, 0, "The instance's disk or quota is full.", "Make room in the instance."),
    ("incus_error", _R, 0, "Incus answered with an error of its own.", "See the message and Incus's log."),
    ("stalled", _R, 0, "Nothing moved for incus.timeout_s seconds.", "See whether Incus or the disk hangs."),
    ("verify_failed", _R, 0, "What is in the instance is not what was sent.", "See whether something else writes to that path."),
    ("worker_error", _R, 0, "The worker made a mistake.", "Please report it with the log's lines."),
    ("io_error", _R, 0, "Reading the spool or writing the target failed.", "See the message; check the disk."),
    ("parent_not_found", _D, 0, "The directory of the destination does not exist.",
     "Create it and retry the task, or upload with mkdirs=true."),
    ("parent_not_directory", _D, 0, "A part of the destination's path is not a directory.", "Choose another path."),
    ("target_is_directory", _D, 0, "The destination is a directory.", "End the path with a file name."),
    ("target_not_regular", _D, 0, "The destination is not a regular file.", "Choose another path."),
    ("target_is_mount_point", _D, 0, "The destination is a mount point or otherwise in use.", "Choose another path, or unmount it."),
    ("owner_not_mapped", _D, 0, "The instance has no such uid or gid.", "Choose one within the instance's id map."),
    ("too_many_links", _D, 0, "The destination is a chain of symbolic links that does not end.", "Mend the links, then retry the task."),
    ("permission_denied", _D, 0, "Writing to this path is not permitted.", "Choose another path, or change its permissions."),
    ("read_only", _D, 0, "The destination is on a read-only filesystem.", "Choose another path, or remount it."),
    ("name_too_long", _D, 0, "The instance's filesystem does not take a name that long.", "Choose a shorter name."),
    ("invalid_row", _D, 0, "The task's row or its file is not one this worker may deliver.", "See the message; fsck may tell more."),
    ("bytes_missing", _D, 0, "The task's bytes are not in the spool.", "Run fsck; look in lost+found."),
    ("bytes_damaged", _D, 0, "The task's bytes are not those that were accepted.", "Check the disk; ask for the file again."),
    ("gave_up", _D, 0, "It did not work for as long as retry.give_up_after_s or retry.max_attempts allow.",
     "Mend the cause in the message, then retry the task."),
    ("order_unknown", _D, 0, "The queue was rebuilt from the spool: why this failed or was held, and what was delivered since, is lost.",
     "Look at the file in the instance; retry or release with --force if these bytes are wanted."),
    ("path_moved_on", _D, 0, "A newer upload to the same path exists.", "Retry with --force if the older bytes are wanted."),
    # --- a start that cannot go on ------------------------------------------------------------------------
    ("bad_config", Action.STOP, 0, "The configuration is wrong.", "See the message; it names the key."),
    ("unsafe_listen", Action.STOP, 0, "Whoever reaches this address could write as root into every instance.",
     "Listen on loopback or a Unix socket, or set api.allow_anonymous = true."),
    ("cannot_listen", Action.STOP, 0, "An address of api.listen cannot be opened.",
     "See the message; another process may have it."),
    ("no_state", Action.STOP, 0, "Where the configuration says there is no state of this service.",
     "Start the service once, or name its configuration with --config."),
    ("read_only_state", Action.STOP, 0, "The state directory cannot be written.",
     "Mend its filesystem and mount it for writing."),
    ("queue_moving", Action.STOP, 0, "The queue is being moved to another number of shards.", "Try again in a moment."),
    ("shard_taken", Action.STOP, 0, "Another worker serves this shard.", "Stop it first, or choose another shard."),
    ("queue_damaged", Action.STOP, 0, "A shard's database is damaged.", "The worker sets it aside and rebuilds it."),
    ("queue_full", _W, 0, "The disk has no room for the queue's own writes.", "Make room on the state directory's filesystem."),
    ("queue_failed", _W, 0, "The queue's database could not be read or written.", "See the message; check the disk."),
    ("queue_locked", _R, 0, "Another process held the queue's database for too long.", "See whether one of them hangs."),
)


class CourierError(Exception):
    """An error with a row in the table; `detail` says what happened this time, for people."""

    def __init__(self, code: str, detail: str = "") -> None:
        self.kind: Final = ERRORS[code]
        self.detail: Final = detail or self.kind.title
        super().__init__(self.detail)

    @property
    def code(self) -> str:
        """The stable code of this error."""
        return self.kind.code


class Rejected(CourierError):
    """Raised when a request is refused: answer with the kind's status, keep nothing."""


class Undelivered(CourierError):
    """Raised when a push did not work: the worker does what the kind's action says."""


class CannotStart(CourierError):
    """Raised when a process cannot go on: print the detail and exit."""


class QueueFault(CourierError):
    """Raised when a shard's database fails: queue_full, queue_failed, queue_locked or queue_damaged."""

    def __init__(self, code: str, detail: str = "", *, certainly_failed: bool = True) -> None:
        super().__init__(code, detail)
        #: True when nothing was committed; False when that cannot be told.
        self.certainly_failed: Final = certainly_failed
