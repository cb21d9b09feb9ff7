"""Every log event, in one table: its name, level, MESSAGE_ID and what it says.

`logs.log()` refuses an event that is not here, and `docs/events.md` is generated from it.
The MESSAGE_ID of an event is a UUIDv5 of its name, so it never changes and needs no list of its own.
"""

import uuid
from dataclasses import dataclass
from functools import cache
from typing import Final

#: The namespace in which event names become MESSAGE_IDs.
NAMESPACE: Final = uuid.UUID("6f061621-8d5f-5c3e-9a53-1d1b6a5b7c10")


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One row of the table of events."""

    name: str
    #: debug, info, warning or error.
    level: str
    #: A sentence for people; the event's fields follow it.
    message: str

    @property
    def message_id(self) -> str:
        """32 hexadecimal digits, for the journal's MESSAGE_ID field."""
        return _message_id(self.name)


@cache
def _message_id(name: str) -> str:
    return uuid.uuid5(NAMESPACE, name).hex


def _table(*rows: tuple[str, str, str]) -> dict[str, LogEvent]:
    return {row[0]: LogEvent(*row) for row in rows}


EVENTS: Final[dict[str, LogEvent]] = _table(
    # --- processes ----------------------------------------------------------------------------------------
    ("service.started", "info", "The service runs"),
    ("service.stopped", "info", "The service stopped"),
    ("service.child_died", "warning", "A process of the service ended and is started again"),
    ("service.child_hangs", "error", "A process of the service stands still and is ended"),
    ("service.open_door", "warning", "Everyone who reaches this address can write into every instance"),
    ("api.waiting", "warning", "The API cannot go on yet"),
    ("api.started", "info", "The API takes uploads"),
    ("api.draining", "info", "The API takes no more uploads and finishes those that run"),
    ("api.stopped", "info", "The API stopped"),
    ("api.error", "error", "The API made a mistake"),
    ("storage.started", "info", "The uploads that several processes take are stored by one"),
    ("storage.stopped", "info", "Everything that was taken is stored"),
    ("worker.started", "info", "The worker serves its shard"),
    ("worker.draining", "info", "The worker takes no more tasks and finishes those that run"),
    ("worker.stopped", "info", "The worker stopped"),
    ("worker.waiting", "warning", "The worker cannot go on yet"),
    ("worker.error", "error", "The worker made a mistake"),
    ("state.taken", "info", "This host uses the state from now on"),
    ("config.reloaded", "info", "The configuration was read again"),
    ("tokens.reloaded", "info", "The file of tokens was read again"),
    ("tokens.rejected", "error", "The file of tokens cannot be read; the last good tokens stay in force"),
    ("access.refused", "warning", "Somebody was refused for want of rights"),
    ("access.not_marked", "error", "It could not be written down that strangers get no rights any more"),
    ("config.rejected", "error", "The new configuration is wrong; the old one stays in force"),
    ("log.lost", "warning", "Nobody took so many lines of the log; they are lost"),
    # --- who may do what ----------------------------------------------------------------------------------
    ("access.token_made", "info", "Somebody was given rights, or a part of another's"),
    ("access.token_ended", "info", "Rights ended, and all that was handed on of them"),
    ("access.set_aside", "error", "The database of what was handed on was damaged and set aside: all of it ends, and"
                                  " amounts that were used up count from nothing"),
    # --- an upload ----------------------------------------------------------------------------------------
    ("upload.accepted", "info", "An upload is on the disk and in the queue"),
    ("upload.replayed", "info", "An upload repeats an idempotency key; the first task stands for both"),
    ("upload.rejected", "info", "An upload was refused"),
    ("request.refused", "warning", "A request for another host, or from a web page of another site, was refused"),
    ("tls.refused", "info", "A TLS handshake failed; the connection was closed"),
    ("tls.renewed", "info", "New connections get the certificate that was read again"),
    ("tls.rejected", "error", "The new certificate cannot be used; the old one stays in force"),
    ("answer.unread", "info", "A client did not read its answer; its connection was closed"),
    ("upload.aborted", "info", "A client went away before its upload was whole"),
    ("upload.begun", "info", "A resumable upload was made; its bytes are still to come"),
    ("upload.interrupted", "info", "A client went away while it sent to a resumable upload; what came is kept"),
    ("upload.ended", "info", "A resumable upload was removed by its client"),
    ("upload.expired", "info", "Resumable uploads were removed to which nothing was added for uploads.expire_s"),
    ("partials.failed", "error", "The resumable uploads could not be swept; it is tried again"),
    ("upload.failed", "error", "An upload could not be stored"),
    ("upload.superseded", "info", "A newer upload to the same path replaced one that was pending"),
    # --- a delivery ---------------------------------------------------------------------------------------
    ("push.started", "debug", "A push began"),
    ("push.delivered", "info", "A file is in its instance"),
    ("push.deferred", "warning", "A push did not work and will be tried again"),
    ("push.waiting", "info", "A push waits for its destination"),
    ("push.failed", "error", "A push failed for good; the bytes are kept as a dead letter"),
    ("push.cancelled", "info", "A task was cancelled before its file was in place"),
    ("push.not_atomic", "warning", "A file was written in place, for want of SFTP or by configuration"),
    ("target.down", "warning", "A destination does not answer"),
    ("target.up", "info", "A destination answers again"),
    ("target.chosen", "info", "What uploads are delivered to"),
    ("target.swept", "info", "A left-over part file was removed"),
    ("target.not_swept", "warning", "A part file may be left over in an instance and could not be removed"),
    # --- webhooks -----------------------------------------------------------------------------------------
    ("sender.started", "info", "The sender takes messages to webhooks"),
    ("sender.stopped", "info", "The sender stopped"),
    ("sender.refused", "error", "The sender was told what it does not understand, and closed the connection"),
    ("sender.error", "error", "The sender made a mistake"),
    ("sender.away", "warning", "The sender cannot be reached; messages to webhooks wait"),
    ("sender.back", "info", "The sender can be reached again"),
    ("webhook.delivered", "info", "A webhook took a message"),
    ("webhook.deferred", "info", "A webhook did not take a message; it is tried again"),
    ("webhook.given_up", "error", "A message to a webhook was given up; it is kept, and can be sent again"),
    ("webhook.down", "warning", "A webhook does not take messages"),
    ("webhook.up", "info", "A webhook takes messages again"),
    ("webhook.disabled", "warning", "Nothing is sent to a webhook until a person enables it"),
    ("webhook.enabled", "info", "A webhook was enabled by a person"),
    ("webhook.replayed", "info", "A person had messages to a webhook sent again"),
    ("webhook.outbox_full", "error", "Messages to a webhook were given up unsent; they can be sent again"),
    ("webhook.forgotten", "warning", "Messages to a webhook that were given up were forgotten"),
    ("webhook.events_lost", "error", "What happened is not known for some time; webhooks are not told of it"),
    # --- what a person asked for --------------------------------------------------------------------------
    ("task.commanded", "info", "A task was changed by a person"),
    ("task.saved", "info", "Somebody fetches the bytes of a task"),
    ("content.cut_off", "error", "The bytes of a task are not those that were accepted, or cannot be read; who fetched"
                                 " them got less than all"),
    ("counters.not_kept", "warning", "What an API process counts for the metrics cannot be kept, or read again"),
    ("selection.interrupted", "warning", "A selection was not applied to its end; it can be applied again"),
    ("task.expired", "warning", "A dead letter was removed: it was kept for retention.failed_s"),
    ("task.command_refused", "warning", "What a person asked for could not be done"),
    # --- the storage --------------------------------------------------------------------------------------
    ("spool.cleared", "debug", "Spooled bytes were removed after their delivery was on the disk"),
    ("queue.cleared", "debug", "Finished tasks were cleared"),
    ("queue.resumed", "info", "Tasks that were being pushed when a worker died are queued again"),
    ("queue.rechecked", "info", "Deliveries from before a crash of the machine, or of another one, are checked again"),
    ("queue.replaced", "warning", "A shard's database was replaced; the row was put again"),
    ("queue.set_aside", "error", "A shard's database was damaged and set aside; it is rebuilt from the spool"),
    ("queue.rebuilt", "warning", "A shard's queue was compared with the spool before its worker began"),
    ("queue.upgraded", "info", "A shard's database was brought up to date"),
    ("keys.kept", "warning", "The database of keys of an older version could not be removed; nothing uses it"),
    ("queue.resharded", "info", "Tasks were moved to another number of shards"),
    ("name.cleared", "warning", "A directory had the name of a file of the service's own; it was put out of the way"),
    ("disk.full", "error", "The disk is full; the reserve was released so that work can finish"),
    ("disk.reserve_back", "info", "There is room again; the reserve was made anew"),
    ("fsck.finding", "warning", "Queue and spool do not agree"),
    ("fsck.done", "info", "Queue and spool were compared"),
)
