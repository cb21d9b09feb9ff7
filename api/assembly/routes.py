"""The addresses, each with the parts that serve it."""

import math

from api.assembly.access import Access
from api.assembly.acting import Acting
from api.assembly.following import Following
from api.assembly.ground import Ground
from api.assembly.overseeing import Overseeing
from api.assembly.receiving import Receiving
from api.assembly.resuming import Resuming
from api.assembly.stores import Stores
from api.http.peers import Shares
from api.routes import me
from api.routes.actions import ACTIONS_AT_ONCE, ActionRoutes
from api.routes.app import PAGES_AT_ONCE, Courier
from api.routes.content import CONTENTS_AT_ONCE, ContentRoutes
from api.routes.deeds import DeedRoutes
from api.routes.draft import DraftRoutes
from api.routes.endpoint import Route, auditing
from api.routes.events import STREAMS_SHARE, EventRoutes
from api.routes.explaining import ExplanationRoutes
from api.routes.forms import FormRoutes
from api.routes.metrics import MetricRoutes
from api.routes.one_task import TaskFinder
from api.routes.openapi import DescriptionRoutes
from api.routes.overview import OverviewRoutes
from api.routes.tokens import TokenRoutes
from api.routes.tus import TusRoutes
from api.routes.webhooks import WebhookRoutes
from daemon.process.shared_counts import Column


def all_routes(
    ground: Ground, stores: Stores, access: Access, following: Following, receiving: Receiving, acting: Acting,
    resuming: Resuming, overseeing: Overseeing,
) -> list[Route]:
    """All addresses of the service, and that of their description."""
    live, counts, outcomes = ground.live, ground.counts, following.outcomes
    audit = auditing(ground.refusals)
    pages = Shares(lambda: PAGES_AT_ONCE, counts, Column.PAGES)
    streams = Shares(lambda: math.ceil(live.config.api.max_connections * STREAMS_SHARE), counts, Column.STREAMS)
    act = Shares(lambda: ACTIONS_AT_ONCE, counts, Column.ACTIONS)
    fetch = Shares(lambda: CONTENTS_AT_ONCE, counts, Column.CONTENTS)

    courier = Courier(
        live, receiving.uploads, overseeing.probe, stores.reading, ground.refusals, stores.finder, outcomes)
    one_task = TaskFinder(stores.finder, ground.refusals)
    actions = ActionRoutes(live, acting.errands, one_task, stores.reader.shards, act)
    draft = DraftRoutes(live, resuming.engine, outcomes, courier.describe)
    return DescriptionRoutes().routes([
        *courier.routes(pages, audit, actions.delete, draft.at_file),
        *FormRoutes(live, receiving.uploads, outcomes, courier.describe).routes(),
        *me.routes(audit),
        *DeedRoutes(stores.reader, stores.reading).routes(pages, audit),
        *ExplanationRoutes(live, ground.layout, stores.reader, one_task, stores.reading).routes(audit),
        *OverviewRoutes(
            live, overseeing.surveyor, overseeing.whole, overseeing.ranking, overseeing.paging).routes(pages, audit),
        *MetricRoutes(overseeing.figures).routes(audit),
        *TokenRoutes(live, access.delegations, access.asking).routes(pages, audit),
        *EventRoutes(live, following.streams).routes(streams, audit),
        *actions.routes(audit),
        *acting.selecting.routes(act, audit),
        *ContentRoutes(stores.spool, one_task, acting.fetching).routes(fetch, audit),
        *WebhookRoutes(live, stores.reader, ground.layout, stores.reading).routes(pages, audit),
        *TusRoutes(live, resuming.engine, outcomes).routes(audit),
        *draft.routes(audit),
    ])
