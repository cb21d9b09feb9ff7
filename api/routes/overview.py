"""The addresses of the whole, for an operator: how it stands, and how each instance does."""

import time
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote, urlencode

from api.http.description import Content, Description, Leads, NumberParameter, Outcome, Parameter, names
from api.http.parameters import check_configured, read_instance, read_query, unescape
from api.http.peers import Shares
from api.http.response import Answer, Receive, Scope, json_answer
from api.live_config import LiveConfig
from api.overview.fresh import Fresh
from api.overview.instances import CURSOR, Page, Rank, Ranking
from api.overview.surveyor import Surveyor, Whole
from api.overview.view import (
    INSTANCE,
    INSTANCES,
    OVERVIEW,
    describe_instance,
    describe_instances,
    describe_overview,
)
from api.queries.sight import Sight
from api.routes.endpoint import Audit, Endpoint, Few, Route, caller_in
from api.threads import joined
from api.uploads.fields import INSTANCE_IN_ADDRESS, PROJECT_PARAMETER
from daemon.access.decide import decide
from daemon.config.cells import refuse_elsewhere
from daemon.errors import Rejected
from daemon.model.grant import Permission
from daemon.model.names import check_project
from daemon.model.schema import text
from daemon.model.upload import Destination

OVERVIEW_ADDRESS: Final = "/v1/overview"
INSTANCES_ADDRESS: Final = "/v1/instances"
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
_NO_PARAMETERS: Final[frozenset[str]] = frozenset()
_LIMIT: Final = NumberParameter("limit", MAX_LIMIT, DEFAULT_LIMIT, "how many at most")
_PAGE: Final = (_LIMIT, Parameter(
    name="after", meaning="those behind that place: `next` of the page before has it",
    schema=text(pattern=CURSOR)))
_GROUP: Final = "The whole"
_REFUSALS: Final = ("action_not_allowed", "address_not_allowed", "queue_unreadable", "no_room")
_SHELL: Final = "curl http://127.0.0.1:8420"
SHOWING: Final = Description(
    operation_id="getOverview", group=_GROUP, summary="See how the whole stands, and what needs a person",
    text="This needs the right `read`, without bounds on instances, projects, remotes, paths or own tasks. It is found"
    " out once a second at most, for all who ask. Where the disk does not answer, it is what was known before.",
    outcomes={200: Outcome(meaning="As it is now.", content=Content(schema=OVERVIEW))},
    refuses=("bad_query", *_REFUSALS), example=f"{_SHELL}{OVERVIEW_ADDRESS}")
LISTING: Final = Description(
    operation_id="listInstances", group=_GROUP, summary="See the instances, those with most waiting first",
    text="This needs the right `read`, without bounds on paths or own tasks. What somebody may not see is left out."
    " An instance for which as much waits as before is on one page exactly, however the others move meanwhile.",
    parameters=_PAGE, outcomes={200: Outcome(meaning="A page of them.", content=Content(schema=INSTANCES), leads=(
        Leads(operation_id="getInstance", given={"instance": "$response.body#/instances/0/instance"}),))},
    refuses=(*_REFUSALS, "too_busy"), example=f"{_SHELL}{INSTANCES_ADDRESS}?limit=10")
SHOWING_ONE: Final = Description(
    operation_id="getInstance", group=_GROUP, summary="See how an instance stands, and why it waits",
    text="This needs the right `read` for it, without bounds on paths or own tasks. An instance that nothing is known"
    " of has nothing that waits.",
    parameters=(INSTANCE_IN_ADDRESS, PROJECT_PARAMETER),
    outcomes={200: Outcome(meaning="As it is now.", content=Content(schema=INSTANCE))},
    refuses=("bad_query", *_REFUSALS, "remote_not_allowed", "project_not_allowed", "instance_not_allowed", "other_cell",
             "too_busy"),
    example=f"{_SHELL}{INSTANCES_ADDRESS}/web1")


class OverviewRoutes:
    """What the addresses of the whole do."""

    def __init__(
        self, live: LiveConfig, surveyor: Surveyor, whole: Fresh[Whole], ranking: Fresh[Ranking], threads: Executor,
    ) -> None:
        self._live = live
        self._surveyor = surveyor
        self._whole = whole
        self._ranking = ranking
        self._threads = threads

    def routes(self, pages: Shares, audit: Audit) -> list[Route]:
        """The addresses; `pages` has the pages that wait to be read in all API processes."""
        return [
            Route(OVERVIEW_ADDRESS, Endpoint({"GET": SHOWING.by(self.get_overview)}, audit=audit)),
            Route(INSTANCES_ADDRESS, Few(Endpoint({"GET": LISTING.by(self.get_instances)}, audit=audit), pages)),
            Route(f"{INSTANCES_ADDRESS}/{{instance}}",
                  Few(Endpoint({"GET": SHOWING_ONE.by(self.get_instance)}, audit=audit, redirects=True), pages)),
        ]

    async def get_overview(self, scope: Scope, receive: Receive) -> Answer:
        """GET /v1/overview."""
        read_query(scope["query_string"], _NO_PARAMETERS)
        sight = Sight(caller_in(scope))
        _require_read(sight)
        if not sight.of_all:
            raise Rejected("action_not_allowed", "The whole is for who may see all tasks.")
        return json_answer(200, describe_overview(await self._whole.get()))

    async def get_instances(self, scope: Scope, receive: Receive) -> Answer:
        """GET a page of instances."""
        parameters = read_query(scope["query_string"], names(_PAGE))
        limit, after = _LIMIT.read(parameters), parameters.get("after")
        place = None if after is None else Rank.read(after)
        sight = Sight(caller_in(scope))
        _require_instances(sight)
        sees = None if sight.everywhere else sight.reaches
        ranking = (await self._ranking.get()).value if place is None else None
        page, rows = await joined(self._threads.submit(self._surveyor.page, ranking, place, limit, sees))
        described = describe_instances(page, rows, time.time(), _following(page, parameters), self._live.config)
        return json_answer(200, described)

    async def get_instance(self, scope: Scope, receive: Receive) -> Answer:
        """GET one instance."""
        config = self._live.config
        given = read_query(scope["query_string"], names((PROJECT_PARAMETER,)))
        remote, instance = read_instance(unescape(scope["path_params"]["instance"], "bad_instance"))
        project = check_project(given.get("project", config.project_of(remote)))
        sight, to = Sight(caller_in(scope)), Destination(remote, project, instance, "/")
        _require_instances(sight)
        if (code := decide(sight.caller, Permission.READ, to)) is not None:
            raise Rejected(code)
        check_configured(to, config)
        [row] = await joined(self._threads.submit(self._surveyor.rows, [to.instance_key]))
        if not row.known:
            refuse_elsewhere(to, config)
        if not sight.of_all:
            row = replace(row, explanation=row.explanation.for_outsiders())
        return json_answer(200, describe_instance(row, time.time(), config))


def _require_read(sight: Sight) -> None:
    code = decide(sight.caller, Permission.READ)
    if code is not None:
        raise Rejected(code)


def _require_instances(sight: Sight) -> None:
    _require_read(sight)
    if sight.within_instances:
        raise Rejected("action_not_allowed", "How an instance stands is for who may see all of its tasks.")


def _following(page: Page, parameters: dict[str, str]) -> str | None:
    if page.after is None:
        return None
    query: dict[str, Any] = {**parameters, "after": page.after.cursor}
    return f"{INSTANCES_ADDRESS}?{urlencode(query, safe='/', quote_via=quote)}"
