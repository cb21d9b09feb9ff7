"""Following tasks: a stream of what happens to them (Server-Sent Events, as the HTML standard has them)."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from api.following.stream import Stream, Streams
from api.following.view import STREAMED, EventFilter
from api.http.description import Content, Description, Outcome, Parameter, Where, names
from api.http.parameters import Headers, check_configured, collect, read_query
from api.http.peers import Shares
from api.http.response import REQUESTER, Receive, Scope, StreamedAnswer
from api.live_config import LiveConfig
from api.queries.sight import Sight
from api.queries.task_query import FILTERS, read_client, read_place, read_states
from api.routes.endpoint import Audit, Endpoint, Few, Route
from daemon.access.decide import decide
from daemon.config import Config
from daemon.config.cells import refuse_elsewhere
from daemon.errors import Rejected
from daemon.model.grant import Permission
from daemon.model.names import printable
from daemon.model.schema import many, text
from daemon.model.upload import TASK_ID, Destination, is_task_id

ADDRESS: Final = "/v1/events"
#: Tasks that one stream follows by their ids.
MOST_TASKS: Final = 100
#: Of what `api.max_connections` allows, streams may hold this part: uploads and questions always find room.
STREAMS_SHARE: Final = 1 / 2
EVENT_STREAM: Final = "text/event-stream"
#: A proxy keeps nothing of it, and holds nothing back.
_HEADERS: Final = (("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))
_LAST_ID: Final = text("an `id` of this stream, as it is")
_GOING_ON: Final = "the last event that the client was told: it is told what happened since"
_LAST_EVENT_ID: Final = Parameter(
    name="Last-Event-ID", meaning=_GOING_ON, schema=_LAST_ID, place=Where.HEADER, refuses=(),
    without="what happens from now on")
_PARAMETERS: Final = (
    Parameter(name="task", meaning="about these tasks", commas=True,
              schema=many(text(pattern=TASK_ID), least=1, most=MOST_TASKS)),
    *FILTERS,
    Parameter(name="last_event_id", meaning=f"{_GOING_ON}. The header counts before it", schema=_LAST_ID),
)
FOLLOWING: Final = Description(
    operation_id="followTasks", group="Tasks", summary="What happens to tasks, while it happens",
    text="A stream of Server-Sent Events that does not end by itself. This needs the right `read`; nobody is told of"
    " tasks that he may not see. [following.md](following.md) has more.", parameters=(*_PARAMETERS, _LAST_EVENT_ID),
    outcomes={200: Outcome(meaning="The stream. This is one event of it.",
                           content=Content(media_type=EVENT_STREAM, schema=STREAMED))},
    refuses=("action_not_allowed", "address_not_allowed", "other_cell", "too_busy", "queue_unreadable", "no_room"),
    example="curl -N 'http://127.0.0.1:8420/v1/events?instance=web1'")


@dataclass(frozen=True, slots=True)
class Subscription:
    """What somebody wants to follow."""

    wanted: EventFilter
    instance: Destination | None
    #: The id of the last event that he was told, as he says; empty: he begins.
    last_id: str


class EventRoutes:
    """What the address of events does."""

    def __init__(self, live: LiveConfig, streams: Streams) -> None:
        self._live = live
        self._streams = streams

    def routes(self, places: Shares, audit: Audit) -> list[Route]:
        """The address; `places` has the streams of all API processes."""
        endpoint = Endpoint({"GET": FOLLOWING.by(self.get_events)}, audit=audit, redirects=True)
        return [Route(ADDRESS, Few(endpoint, places))]

    async def get_events(self, scope: Scope, receive: Receive) -> StreamedAnswer:
        """GET what happens."""
        config = self._live.config
        asked = read_subscription(scope["query_string"], collect(scope["headers"]), config)
        requester = scope["state"][REQUESTER]
        code = decide(requester.caller, Permission.READ)
        if code is not None:
            raise Rejected(code)
        if asked.instance is not None and Sight(requester.caller).reaches(asked.instance.instance_key):
            refuse_elsewhere(asked.instance, config)
            check_configured(asked.instance, config)
        pieces = await self._streams.begin(Stream(requester, asked.wanted), asked.last_id, receive)
        return StreamedAnswer(200, EVENT_STREAM, _nothing() if scope["method"] == "HEAD" else pieces, _HEADERS)


async def _nothing() -> AsyncGenerator[bytes, None]:
    for piece in list[bytes]():
        yield piece


def read_subscription(query: bytes, headers: Headers, config: Config) -> Subscription:
    """Read the parameters and headers of GET /v1/events. Raises Rejected."""
    parameters = read_query(query, names(_PARAMETERS))
    instance = read_place(parameters, config)
    wanted = EventFilter(
        task_ids=_task_ids(parameters.get("task")), states=read_states(parameters.get("state")),
        instance_key=None if instance is None else instance.instance_key, client=read_client(parameters.get("client")))
    # A browser that comes again says the new one in the header; its address is still the old one.
    given = b"".join(headers.get(_LAST_EVENT_ID.field, ())).decode("latin-1")
    return Subscription(wanted, instance, given or parameters.get("last_event_id", ""))


def _task_ids(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset()
    names = text.split(",")
    wrong = [name for name in names if not is_task_id(name)]
    if wrong:
        raise Rejected("bad_query", f"{printable(wrong[0])!r} is not the id of a task.")
    if len(names) > MOST_TASKS:
        raise Rejected("bad_query", f"`task` has more than {MOST_TASKS} ids.")
    return frozenset(names)
