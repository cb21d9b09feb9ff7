"""Every error the service can report, in one table, typed by what to do about it.

Guarantees: a code never changes its meaning; the table is the only place where a code, its HTTP status, its exit status,
what is done about it and its advice are written down. `docs/errors.md` is generated from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from os import EX_CONFIG, EX_TEMPFAIL
from typing import Final

#: From here on a status says that the service is in trouble.
_INTERNAL_SERVER_ERROR: Final = 500


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
    #: `incus-courier push` does not send this file; it goes on with the others.
    LEAVE = "leave"


class Scope(Enum):
    """How much is unavailable when an error comes up: what else would only meet the same one."""

    #: This task alone.
    TASK = "task"
    #: Every task of the instance.
    INSTANCE = "instance"
    #: Every task of the remote.
    REMOTE = "remote"


class Cause(Enum):
    """What the error tells about its destination, besides how much of it is unavailable."""

    #: Nothing that would matter beyond the task.
    OTHER = "other"
    #: Nothing at all: the trouble is on this side.
    HERE = "here"
    #: The connection ended, and cannot be used any more.
    LOST = "lost"
    #: Nothing moved: it may hang, and the connection cannot be used any more.
    SILENT = "silent"
    #: Incus does not let this service in.
    REFUSED = "refused"
    #: What holds the destination is not there, and took with it what was in it.
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorKind:
    """One row of the table of errors."""

    #: Stable, machine-readable name.
    code: str
    action: Action
    #: A sentence: what is wrong.
    title: str
    #: What to do about it.
    hint: str
    #: HTTP status when a client meets it; 0 when no client ever does.
    status: int = 0
    #: Seconds after which a client, or a worker at the earliest, may try again, where the trouble passes by itself; 0
    #: where it does not, or nobody knows when.
    retry_after_s: int = 0
    scope: Scope = Scope.TASK
    cause: Cause = Cause.OTHER
    #: It may be one instance's trouble or all of the remote's: asking the remote tells.
    ask_remote: bool = False
    #: A full disk may be behind it, so that room helps.
    room_helps: bool = False
    #: Exit status of a process that ends because of it (sysexits.h).
    exit_status: int = 1


def _table(*rows: ErrorKind) -> dict[str, ErrorKind]:
    return {row.code: row for row in rows}


def _reject(code: str, status: int, title: str, hint: str, *, retry_after_s: int = 0) -> ErrorKind:
    return ErrorKind(code=code, action=Action.REJECT, status=status, title=title, hint=hint, retry_after_s=retry_after_s)


def _wait(
    code: str, title: str, hint: str, *, scope: Scope = Scope.TASK, cause: Cause = Cause.OTHER, room_helps: bool = False,
) -> ErrorKind:
    return ErrorKind(code=code, action=Action.WAIT, title=title, hint=hint, scope=scope, cause=cause, room_helps=room_helps)


def _retry(
    code: str, title: str, hint: str, *, scope: Scope = Scope.TASK, cause: Cause = Cause.OTHER, ask_remote: bool = False,
    retry_after_s: int = 0,
) -> ErrorKind:
    return ErrorKind(code=code, action=Action.RETRY, title=title, hint=hint, scope=scope, cause=cause,
                     ask_remote=ask_remote, retry_after_s=retry_after_s)


def _dead_letter(code: str, title: str, hint: str, *, cause: Cause = Cause.OTHER) -> ErrorKind:
    return ErrorKind(code=code, action=Action.DEAD_LETTER, title=title, hint=hint, cause=cause)


def _stop(code: str, title: str, hint: str, *, exit_status: int = 1) -> ErrorKind:
    return ErrorKind(code=code, action=Action.STOP, title=title, hint=hint, exit_status=exit_status)


def _leave(code: str, title: str, hint: str) -> ErrorKind:
    return ErrorKind(code=code, action=Action.LEAVE, title=title, hint=hint)


#: The table. Keys are the stable codes.
ERRORS: Final[dict[str, ErrorKind]] = _table(
    # --- a request that cannot be taken -------------------------------------------------------------------
    _reject("bad_instance", 400, "The instance name is missing or not legal.",
            "Use 1 to 63 of A-Z a-z 0-9 and -, no hyphen first or last, not digits alone."),
    _reject("bad_project", 400, "The project name is not legal.",
            "Use the name of an Incus project, without slashes or spaces."),
    _reject("unknown_remote", 400, "The remote is not configured.",
            "Name a remote that has a [remotes.NAME] section, or leave it out."),
    _reject("bad_path", 400, "The destination path is missing or not legal.",
            "Give an absolute, normalised UTF-8 path: no '..', no control characters, no component over 255 bytes, at most 4095 bytes."),
    _reject("bad_name", 400, "The destination is a directory and no file name came with it.",
            "Send the file's name, in X-Host-Path or as the filename of its part of a form, or give the whole path."),
    _reject("bad_mode", 400, "The file mode is not legal.", "Give octal digits, for example 0640."),
    _reject("bad_owner", 400, "The uid or gid is not legal.", "Give a number from 0 to 4294967294."),
    _reject("bad_flag", 400, "A yes/no value is not legal.", "Give true or false."),
    _reject("bad_query", 400, "A query parameter is unknown or not legal.", "See GET /v1/openapi.json, or docs/api.md, for the parameters."),
    _reject("bad_length", 400, "The length of the body is not stated, or in two ways.",
            "Send Content-Length or chunked transfer encoding, not both."),
    _reject("bad_request", 400, "The request is not legal HTTP/1.",
            "Send one Host header and one length, lines that end with CR and LF and are not folded, no control characters, and"
            " percent-encode what is not ASCII in the address."),
    _reject("long_head", 431, "The head of the request is too long.",
            "Keep the address and the headers together, the trailers, and the line of each chunk within 16 KiB."),
    _reject("unknown_coding", 501, "This transfer coding is not known here.", "Send Content-Length, or chunked alone."),
    _reject("wrapped_body", 415, "The body is not the file itself.",
            "Send the bytes of the file as they are, without Content-Encoding; a form (as of curl -F) goes to POST /v1/uploads."),
    _reject("not_a_form", 415, "The body is not a form.",
            "Send multipart/form-data, as a browser or curl -F does; a file alone goes to PUT /v1/instances/{instance}/files/{path}."),
    _reject("bad_form", 400, "The form is not legal.",
            "Send it as RFC 7578 has it: a Content-Disposition with each part, and the closing boundary at the end."),
    _reject("bad_field", 400, "A field of the form is not known, not legal, there twice, or comes after a file.",
            "Send instance, path, project, mode, uid, gid and mkdirs, each once at most, and the files after them."),
    _reject("long_form", 413, "The form is too long, or too little of it is wanted.",
            "Send 1000 files at most with one form, and those that were not read with the next one."),
    _reject("no_file", 400, "There is no file in the form.", "Send at least one part with a filename."),
    _reject("same_path", 400, "Another file of the form goes to the same path.",
            "End the path with a slash, so that each file keeps its name, and send files of one name with forms of their own."),
    _reject("bad_condition", 412, "An upload cannot depend on what is in the instance.",
            "Leave If-Match, If-None-Match and If-Unmodified-Since out."),
    _reject("bad_range", 400, "A part of a file cannot be uploaded.",
            "Leave Content-Range out and send the whole file."),
    _reject("bad_digest", 400, "The digest header is not legal.", "Send sha-256=:BASE64: or sha-512=:BASE64: as in RFC 9530."),
    _reject("unchecked_digest", 400, "A digest was announced that this service does not check.",
            "Send sha-256 or sha-512 in Repr-Digest or Content-Digest in the head; no Content-MD5, no Digest, none in a trailer."),
    _reject("digest_mismatch", 400, "The body does not have the digest that was announced.",
            "Send it again; it was damaged on its way, or the digest is of something else."),
    _reject("bad_idempotency_key", 400, "The idempotency key is not legal.", "Give 1 to 255 visible ASCII characters."),
    _reject("idempotency_mismatch", 422, "This idempotency key was used for a different upload.",
            "Use a new key for a new upload."),
    _reject("incomplete_body", 400, "The body ended before the announced length.", "Send it again."),
    _reject("upload_not_found", 404, "There is no resumable upload with this address.",
            "It may have expired (uploads.expire_s), or was ended; begin anew."),
    _reject("upload_busy", 423, "Another request has this upload.",
            "The newest request gets it. Ask how the upload stands in a moment, and go on from there.", retry_after_s=1),
    _reject("wrong_offset", 409, "The upload does not stand at this offset.",
            "Ask how it stands, and go on from there; what was sent was not stored."),
    _reject("upload_completed", 400, "The upload is complete: nothing can be added to it.", "Begin a new one."),
    _reject("inconsistent_length", 400, "The length of the upload contradicts what was said or sent before.",
            "Say the same length each time, and send no more than that."),
    _reject("beyond_length", 413, "The body goes beyond the length of the upload.",
            "Send what is missing, or begin anew with another length."),
    _reject("bad_checksum", 400, "The checksum of this part is not legal, or its algorithm is not known here.",
            "Send sha1 or sha256, and the digest in base64."),
    _reject("checksum_mismatch", 460, "The bytes of this part do not have their checksum; nothing of it was kept.",
            "Send the part again."),
    _reject("too_many_partials", 503, "Too many resumable uploads are not finished.",
            "Try again later, or end some; see uploads.max_partials and uploads.max_partial_bytes.", retry_after_s=10),
    _reject("tus_version", 412, "Only version 1.0.0 of tus is spoken here.", "Send Tus-Resumable: 1.0.0."),
    _reject("bad_metadata", 400, "The metadata of the upload is not legal.",
            "Send pairs of a key and a value in base64, with commas in between, each key once; see docs/resumable.md."),
    _reject("bad_upload_header", 400, "A header of the resumable upload is missing or not legal.", "See the message for which."),
    _reject("part_type", 415, "The body is not of the type that a part has.",
            "Send application/offset+octet-stream to tus, application/partial-upload by the IETF's draft."),
    _reject("bad_override", 400, "A POST does not stand for this method.", "Send PATCH or DELETE in X-HTTP-Method-Override."),
    _reject("unknown_interop", 400, "Resumable uploads are not spoken in this version of the IETF's draft.",
            "Send Upload-Draft-Interop-Version: 5 or 6; without it, send the whole file, with Upload-Complete: ?1 or not."),
    _reject("not_cancellable", 409, "The task of this upload does not wait any more.", "Ask for the task."),
    _reject("too_slow", 408, "The body came too slowly.", "Send it again over a faster line."),
    _reject("not_found", 404, "There is nothing here.", "See GET /v1/openapi.json, or docs/api.md, for the addresses."),
    _reject("task_not_found", 404, "There is no task with this id.",
            "It may have been finished and cleared; see retention.delivered_s."),
    _reject("unknown_host", 421, "The request is for a host that this service is not known as.",
            "Use an IP address or localhost with the port of this service, or have the name added to api.hosts, or the site to"
            " api.origins."),
    _reject("other_cell", 421, "Another cell has this instance.",
            "Send it to the address that is named: `cell` and `address` here, Cell-Name and Cell-Address in the head."),
    _reject("no_cell", 404, "No cell has this instance.",
            "See its name; the administrator has it named in [[cells]], on each host, and `incus-courier check` finds others."),
    _reject("not_adopted", 503, "This cell has let go of the instance, and has not taken it back.",
            "Try again later; the administrator takes it back by incus-courier cell adopt (docs/scaling.md).", retry_after_s=10),
    _reject("cross_site", 403, "The request comes from a web page of another site.",
            "Send it from a program, or from a page of the same scheme, host and port; have the site of a proxy added to"
            " api.origins, which must leave the Host header as it is, and another site to api.cors_origins."),
    _reject("bad_forwarded", 400, "The proxy names its user in a way that is not legal.",
            "Have it send the header of proxy.user_header once, with 1 to 255 printable characters and no comma, or not at all."),
    _reject("no_credential", 401, "Nobody may do this without a credential.",
            "Send a token in the header Authorization: Bearer, or show a client certificate."),
    _reject("bad_credential", 401, "The credential is wrong, has expired, or was revoked.", "Ask the administrator for a new one."),
    _reject("tokens_unreadable", 503, "The file of tokens cannot be read; the last good tokens stay in force.",
            "Mend the file; see the log."),
    _reject("action_not_allowed", 403, "This credential does not allow that.", "Ask the administrator for the permission."),
    _reject("address_not_allowed", 403, "This credential is not for the address that the request comes from.",
            "Use it where it was made for."),
    _reject("remote_not_allowed", 403, "This credential does not allow that remote.", "Name one that it is for."),
    _reject("project_not_allowed", 403, "This credential does not allow that project.", "Name one that it is for."),
    _reject("instance_not_allowed", 403, "This credential does not allow that instance.", "Name one that it is for."),
    _reject("path_not_allowed", 403, "This credential does not allow that path.", "Name one that it is for."),
    _reject("mkdirs_not_allowed", 403, "This credential does not allow making directories.", "Leave mkdirs out."),
    _reject("mode_not_allowed", 403, "This credential does not allow that mode.",
            "Leave it out, or ask for fewer bits; set-id bits have to be granted."),
    _reject("owner_not_allowed", 403, "This credential does not allow that owner or group.",
            "Leave it out, or name another; 0 has to be granted."),
    _reject("size_not_allowed", 403, "This credential does not allow a file of that size.", "Send a smaller one."),
    _reject("task_not_allowed", 403, "This credential allows that for its own tasks alone.", "Use the credential that sent it."),
    _reject("used_up", 403, "This credential has been used as often, or for as many bytes, as it is for.",
            "Ask for a new one."),
    _reject("rate_limited", 429, "This credential sends too much in too short a time.",
            "Try again when the RateLimit header says.", retry_after_s=1),
    _reject("too_many_pending", 429, "Too much that this credential sent waits to be delivered.", "Try again later.",
            retry_after_s=10),
    _reject("bad_json", 400, "The body is not legal JSON.", "Send one JSON object, in UTF-8, each of its keys once."),
    _reject("bad_grant", 400, "What is to be handed on is not legal.",
            "Send the keys of a grant, `may` among them, `expires_s` or `expires_at`, and `label` if you like."),
    _reject("long_body", 413, "The body is longer than this address takes.", "Send at most 16 KiB."),
    _reject("token_not_found", 404, "There is no token with this id.", "It may have ended; ask for those that there are."),
    _reject("too_many_tokens", 429, "Too many tokens live below one identity.", "End some, or wait until some expire."),
    _reject("delegation_too_deep", 403, "Rights are not handed on so often.", "Have them handed on by who has them from fewer."),
    _reject("bad_action", 400, "What is asked for with tasks is not legal.",
            "See docs/acting.md for what each address takes: `force` with retry and release, `action`, `filter` and `selection`."),
    _reject("wrong_state", 409, "The task is not in a state for that.",
            "The detail says in which state it is. docs/acting.md has the states that each action is for."),
    _reject("newer_upload", 409, "A newer upload to the same path exists.",
            "Send force=true if the older bytes are wanted: they are delivered over the newer ones."),
    _reject("bytes_still_there", 409, "The task is finished, and its bytes are not gone yet.", "Try again in a moment.",
            retry_after_s=5),
    _reject("commands_full", 503, "Too much that was asked for waits for the workers.",
            "Try again later; see whether each shard has a worker.", retry_after_s=10),
    _reject("bytes_gone", 410, "The task's bytes are not kept any more.", "Ask whoever sent the file for it."),
    _reject("bytes_unreadable", 503, "The task's bytes cannot be read, or are not those that were accepted.",
            "The administrator finds more by incus-courier fsck."),
    _reject("selection_not_found", 404, "There is no selection with this id.",
            "It ends ten minutes after it was made, or last applied; ask for a new preview."),
    _reject("too_many_selections", 429, "Too many selections live below one identity.", "Wait until some end.",
            retry_after_s=60),
    _reject("selections_unreadable", 503, "Selections cannot be read or written at the moment.",
            "Try again later; the administrator finds the reason in the journal.", retry_after_s=5),
    _reject("webhook_not_found", 404, "There is no webhook of this name.", "See GET /v1/webhooks."),
    _reject("delivery_not_found", 404, "There is no message with this id to that webhook.",
            "It may have been forgotten; see GET /v1/webhooks/{name}/deliveries."),
    _reject("method_not_allowed", 405, "This address does not take this method.", "See the Allow header."),
    _reject("too_large", 413, "The upload is larger than this service takes.",
            "Send less, or raise limits.max_upload_bytes."),
    _reject("http_version", 505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.", "Use HTTP/1.1."),
    _reject("no_room", 507, "There is no room on the disk for what the service has to write.",
            "Try again later; the administrator can make room for the state directory: bytes, inodes, or a quota."),
    _reject("backlog_full", 503, "Too many uploads are waiting to be delivered.", "Try again later.", retry_after_s=10),
    _reject("too_busy", 503, "Too much goes on at once, in all or for this client.",
            "Try again in a moment, and read what you ask for; see api.max_connections.", retry_after_s=1),
    _reject("draining", 503, "The service is stopping.", "Try again in a moment.", retry_after_s=2),
    _reject("storage_failed", 503, "The upload could not be stored; nothing of it was kept.",
            "Try again later; the administrator finds the reason in the journal.", retry_after_s=5),
    _reject("queue_unreadable", 503, "The queue cannot be read or written at the moment.",
            "Try again later; the administrator finds the reason in the journal."),
    _reject("delegation_unreadable", 503, "What was handed on cannot be read or written at the moment.",
            "Try again later; the administrator finds the reason in the journal.", retry_after_s=5),
    _reject("no_worker", 503, "A shard has no worker: what is uploaded is kept, and delivered when one starts.",
            "Start the worker."),
    _reject("outcome_unknown", 503, "Whether the upload was stored could not be decided.",
            "It will be delivered whole or not at all. Send it again if it must arrive; repeating is safe."),
    _reject("internal", 500, "The service made a mistake.", "Please report it with the log's lines."),
    # --- a file that `incus-courier push` does not send, or whose outcome it does not know ------------------
    _leave("empty_directory", "The folder is empty: there is no file to send.", "Make the folder in the instance by other means if it is needed."),
    _leave("is_directory", "This is a folder.", "Push it with -r."),
    _leave("link_not_followed", "This is a symbolic link, and links are not made in instances.", "Send what it leads to: -H follows links that are named, -L all."),
    _leave("link_loop", "This link leads back to a folder above it.", "Name what is wanted by itself."),
    _leave("not_a_file", "This is a device, a socket or a pipe, not a file.", "Leave it out; what a pipe gives is pushed with - from standard input."),
    _leave("unreadable_file", "The file cannot be read.", "See whether it is there, and whether you may read it."),
    _leave("file_changed", "The file changed while it was sent, so it was not sent.", "Push it again when nobody writes to it."),
    _leave("no_server", "The service cannot be reached.",
           "Name it with --server or $INCUS_COURIER_SERVER, and see whether it runs, and whether you are in the group of its socket."
           " Who vouches for its certificate, --ca says."),
    _leave("bad_answer", "The answer is not one of this service.", "See whether --server leads to it, and what a proxy in between does."),
    _leave("interrupted", "It was interrupted.", "Give the same command again: it goes on where it was."),
    _leave("outcome_unseen", "The file was accepted, and what became of it cannot be seen.", "Use a credential with the right read to wait for outcomes."),
    _leave("undecided", "The file was accepted, and is not in the instance yet.", "It is delivered when that can be done. Give the same command again to go on waiting."),
    # --- a delivery that did not work ---------------------------------------------------------------------
    _wait("incus_unreachable", "Incus does not answer.",
          "Start Incus; the tasks go on by themselves.", scope=Scope.REMOTE, cause=Cause.LOST),
    _wait("incus_refused", "Incus does not let this service in.",
          "Check the socket's group or the client certificate; the tasks go on by themselves.",
          scope=Scope.REMOTE, cause=Cause.REFUSED),
    _wait("agent_down", "The virtual machine's agent is not running.",
          "Start the machine or its agent; the tasks go on by themselves.", scope=Scope.INSTANCE),
    _wait("member_unreachable", "The cluster's member that has the instance does not answer.",
          "Start that member, or move the instance to another; the tasks go on by themselves.", scope=Scope.INSTANCE),
    _wait("instance_stopped", "The instance is stopped.",
          "Start it; delivery.stopped = \"push\" does not wait.", scope=Scope.INSTANCE),
    _wait("hidden_when_stopped", "The instance is stopped, and something will be mounted over this path when it starts.",
          "Start it; the tasks go on by themselves. Its other paths are delivered meanwhile."),
    _reject("cancelled", 0, "A person cancelled the task.", "Nothing to do."),
    _wait("worker_silent", "The shard's worker runs, and has told nothing for a while: it hangs.",
          "See its log, and whether its disk hangs. systemd starts it anew after half a minute; else end it and start it.",
          cause=Cause.HERE),
    _wait("shutdown", "The worker was told to stop.", "Nothing to do.", cause=Cause.HERE),
    _retry("instance_not_found", "There is no such instance.",
           "Create it; the tasks go on as soon as it appears.", scope=Scope.INSTANCE, cause=Cause.GONE),
    _retry("project_not_found", "There is no such project.",
           "Create it, name another, or cancel the task.", scope=Scope.INSTANCE, cause=Cause.GONE),
    _retry("instance_refused", "Incus does not let this service into this instance.",
           "Give the client certificate access to the project.", scope=Scope.INSTANCE, cause=Cause.REFUSED),
    # Incus may have ended it to stop or to snapshot the instance. Who asks for a session meanwhile gets it at the very end
    # of that, just when the next operation of a script may begin, which then waits until nobody uses the instance.
    _retry("connection_lost", "The connection to the instance was lost.",
           "Nothing to do.", scope=Scope.INSTANCE, cause=Cause.LOST, ask_remote=True, retry_after_s=2),
    _retry("instance_changed", "While it was pushed, the instance was replaced by another of its name, moved, started or stopped.",
           "Nothing to do: it is pushed again."),
    _retry("instance_busy", "The instance is busy with another operation.", "Nothing to do.", scope=Scope.INSTANCE),
    # Incus's file server of an instance ends 15 s after its last session, and its socket's name is removed then, even if
    # the next server has it by that time. Who asks again within these 15 s loses the next one, too.
    _retry("file_server_lost", "Incus has lost its own file server of the instance. It starts another once nobody asks for a while.",
           "Nothing to do, unless another program keeps opening sessions to the instance: stop it for half a minute.",
           scope=Scope.INSTANCE, retry_after_s=20),
    _retry("target_full", "The instance's disk or quota is full.", "Make room in the instance."),
    _retry("incus_error", "Incus answered with an error of its own.", "See the message and Incus's log."),
    _retry("stalled", "Nothing moved for incus.timeout_s seconds.",
           "See whether Incus or the disk hangs.", scope=Scope.INSTANCE, cause=Cause.SILENT, ask_remote=True),
    _retry("verify_failed", "What is in the instance is not what was sent.",
           "See whether something else writes to that path."),
    _retry("worker_error", "The worker made a mistake.", "Please report it with the log's lines.", cause=Cause.HERE),
    _retry("io_error", "Reading the spool or writing the target failed.",
           "See the message; check the disk.", cause=Cause.HERE),
    _dead_letter("parent_not_found", "The directory of the destination does not exist.",
                 "Create it and retry the task, or upload with mkdirs=true."),
    _dead_letter("parent_not_directory", "A part of the destination's path is not a directory.",
                 "Choose another path."),
    _dead_letter("too_deep", "Directories are not made so deep below the root: what copies and backs up instances fails there.",
                 "Choose a path of fewer directories, or make them yourself."),
    _dead_letter("parent_not_guarded", "Others than root can change the directory, and there is no SFTP to write there safely.",
                 "Choose a directory of root's, or a server that offers SFTP."),
    _dead_letter("target_is_directory", "The destination is a directory.", "End the path with a file name."),
    _dead_letter("target_not_regular", "The destination is not a regular file.", "Choose another path."),
    _dead_letter("target_is_mount_point", "The destination is a mount point or otherwise in use.",
                 "Choose another path, or unmount it."),
    _dead_letter("owner_not_mapped", "The instance has no such uid or gid.",
                 "Choose one within the instance's id map."),
    _dead_letter("link_not_trusted", "The destination is a symbolic link that a user put where everybody may, as in /tmp.",
                 "Remove the link or name the file that is meant, then retry the task; delivery.symlinks = \"replace\" replaces it."),
    _dead_letter("too_many_links", "The destination is a chain of symbolic links that does not end.",
                 "Mend the links, then retry the task."),
    _dead_letter("permission_denied", "Writing to this path is not permitted.",
                 "Choose another path, or change its permissions."),
    _dead_letter("read_only", "The destination is on a read-only filesystem.", "Choose another path, or remount it."),
    _dead_letter("name_too_long", "The instance's filesystem does not take a name that long.",
                 "Choose a shorter name."),
    _dead_letter("not_allowed", "What the worker may deliver does not include this: delivery.allow and delivery.deny.",
                 "See the message for the rule. Change it, or what is in the instance, and retry the task; or ask who sent it why.",
                 cause=Cause.HERE),
    _dead_letter("instance_released", "This cell has let go of the instance: another one takes its uploads.",
                 "Save the bytes, and upload them to that cell if they are wanted (docs/scaling.md).", cause=Cause.HERE),
    _dead_letter("invalid_row", "The task's row or its file is not one this worker may deliver.",
                 "See the message; fsck may tell more.", cause=Cause.HERE),
    _dead_letter("bytes_missing", "The task's bytes are not in the spool.",
                 "Run fsck; look in lost+found.", cause=Cause.HERE),
    _dead_letter("bytes_damaged", "The task's bytes are not those that were accepted.",
                 "Check the disk; ask for the file again.", cause=Cause.HERE),
    _dead_letter("gave_up", "It did not work for as long as retry.give_up_after_s or retry.max_attempts allow.",
                 "Mend the cause in the message, then retry the task."),
    _dead_letter("order_unknown", "The queue was rebuilt from the spool: why this failed or was held, and what was delivered since, is lost.",
                 "Look at the file in the instance; retry or release with --force if these bytes are wanted.",
                 cause=Cause.HERE),
    _dead_letter("path_moved_on", "A newer upload to the same path exists.",
                 "Retry with --force if the older bytes are wanted."),
    # --- a start that cannot go on ------------------------------------------------------------------------
    _stop("bad_config", "The configuration is wrong.", "See the message; it names the key.", exit_status=EX_CONFIG),
    _stop("bad_tokens", "The file of the tokens cannot be read, or is not one that an administrator wrote.",
          "See the message. The file must be a plain one of root's or of the service's own user, which nobody else writes and"
          " others cannot read.", exit_status=EX_CONFIG),
    _stop("unsafe_listen", "This address is not safe to be reached from other machines.",
          "Give it TLS (tls:) and give rights to somebody, listen on loopback or a Unix socket, or set api.allow_anonymous = true.", exit_status=EX_CONFIG),
    _stop("bad_certificate", "The certificate of [tls], or what clients are verified by, cannot be used.",
          "See the message; the service's user must be able to read these files (docs/install.md).", exit_status=EX_CONFIG),
    _stop("cannot_listen", "An address of api.listen cannot be opened.",
          "See the message; another process may have it. Where systemd runs the service, the API opens no TCP address"
          " without tcp-address.conf (docs/install.md, The network)."),
    _stop("no_state", "Where the configuration says there is no state of this service.",
          "Start the service once, or name its configuration with --config."),
    _stop("unsafe_state", "Whose the state is cannot be told, or its directories are not safe from the service's own users.",
          "Where systemd runs the service, have its directories made anew: systemd-tmpfiles --create incus-courier.conf."),
    _stop("read_only_state", "The state directory cannot be written.", "Mend its filesystem and mount it for writing."),
    _stop("queue_moving", "The queue is being moved to another number of shards.", "Try again in a moment."),
    _stop("shard_taken", "Another worker serves this shard.",
          "Stop it first, or choose another shard.", exit_status=EX_TEMPFAIL),
    _stop("state_in_use", "Another host may still be using the state.",
          "Stop the service there; if that host cannot reach the storage any more, start with --take-over (docs/takeover.md).",
          exit_status=EX_TEMPFAIL),
    _stop("state_lost", "The state is not this process's any more: another host has it, or something else is mounted there.",
          "Nothing was delivered since. See which host has the state, and what is mounted (docs/takeover.md).",
          exit_status=EX_TEMPFAIL),
    _stop("schema_older", "A shard's database is of an older version of this program.",
          "Start the shard's worker, which brings it up to date once no process of the older version uses it."),
    _stop("schema_newer", "A shard's database is of a newer version of this program.",
          "Install that version again, or a newer one.", exit_status=EX_CONFIG),
    _stop("queue_damaged", "A shard's database is damaged, or not of this program's making.",
          "The worker sets it aside and rebuilds it."),
    _wait("queue_full", "There is no room for the service's own writes.",
          "Make room for the state directory: bytes or inodes on its filesystem, or the quota of who owns it.",
          cause=Cause.HERE, room_helps=True),
    _wait("queue_failed", "The queue's database could not be read or written.",
          "See the message; check the disk.", cause=Cause.HERE),
    _retry("queue_locked", "Another process held the queue's database, or the lock for opening it, for too long.", "See whether one of them hangs."),
)


class CourierError(Exception):
    """An error with a row in the table; `detail` says what happened this time, for people."""

    def __init__(
        self, code: str, detail: str = "", *, retry_after_s: int | None = None, headers: Sequence[tuple[str, str]] = (),
        members: Mapping[str, str] | None = None,
    ) -> None:
        self.kind: Final = ERRORS[code]
        self.detail: Final = detail or self.kind.title
        #: As the kind says, unless it is known better this time.
        self.retry_after_s: Final = self.kind.retry_after_s if retry_after_s is None else retry_after_s
        #: What an answer that tells of it has besides.
        self.headers: Final = tuple(headers)
        #: And what a problem that tells of it has besides.
        self.members: Final = members or {}
        super().__init__(self.detail)

    @property
    def code(self) -> str:
        """The stable code of this error."""
        return self.kind.code

    @property
    def is_ours(self) -> bool:
        """True when the service is in trouble, not who asks."""
        return self.kind.status >= _INTERNAL_SERVER_ERROR


class Rejected(CourierError):
    """Raised when a request is refused: answer with the kind's status, keep nothing."""


class Undelivered(CourierError):
    """Raised when a push did not work: the worker does what the kind's action says."""


class CannotStart(CourierError):
    """Raised when a process cannot go on: print the detail and exit."""


class QueueFault(CourierError):
    """Raised when a shard's database fails: queue_full, queue_failed, queue_locked, queue_damaged, schema_*."""

    def __init__(self, code: str, detail: str = "", *, certainly_failed: bool = True) -> None:
        super().__init__(code, detail)
        #: True when nothing was committed; False when that cannot be told.
        self.certainly_failed: Final = certainly_failed
