"""An API process like any other, but for its callers: each says in a header who it is, and what its grant is.

`python -m tests.support.callers_api` takes what `python -m api` takes.
"""

import json
import sys
from unittest.mock import patch

from api import __main__
from api.http.refusal_log import RefusalLog
from api.http.response import CALLER, App, Receive, Scope, Send
from api.live_config import LiveConfig
from api.routes.app import Courier
from api.routes.app import build as build_app
from daemon.access.caller import Caller, Link
from daemon.model.grant import Grant
from daemon.process.shared_counts import SharedCounts

#: The header, with names and the keys of their grants in JSON: the caller's own first.
HEADER = b"x-test-links"


def build(courier: Courier, live: LiveConfig, refusals: RefusalLog, counts: SharedCounts) -> App:
    """The app, with callers."""
    app = build_app(courier, live, refusals, counts)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        said = dict(scope["headers"]).get(HEADER)
        if said is not None:
            links = tuple(Link(name, Grant.read({"may": ["upload"], **keys})) for name, keys in json.loads(said).items())
            scope["state"][CALLER] = Caller(name=links[0].name, links=links)
        await app(scope, receive, send)

    return serve


if __name__ == "__main__":
    with patch("api.service.build", build):
        sys.exit(__main__.main())
