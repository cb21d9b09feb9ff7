"""What the addresses of resumable uploads have in common, whatever the protocol: how trouble that passes is told.

Clients for browsers go on where they were, begin anew or give up by the status alone (seen in tus-js-client 4.3.1).
Asked how an upload stands, anything but 423 makes them begin anew. Sending a part, they give up at 4xx but 409 and 423.
"""

from collections.abc import Awaitable
from typing import Final

from api.http.problem import LOCKED, passes, problem
from api.http.response import Answer
from daemon.errors import Rejected

#: How an upload stands is asked anew each time.
NO_STORE: Final = ("Cache-Control", "no-store")
_REQUEST_TIMEOUT: Final = 408
_SERVICE_UNAVAILABLE: Final = 503


async def looked(answer: Awaitable[Answer]) -> Answer:
    """The answer to the question how an upload stands."""
    try:
        return await answer
    except Rejected as error:
        if passes(error):
            return problem(error, status=LOCKED)
        raise


async def added(answer: Awaitable[Answer]) -> Answer:
    """The answer to a part."""
    try:
        return await answer
    except Rejected as error:
        # A line that stood still may go on, and what came is kept.
        if error.kind.status == _REQUEST_TIMEOUT:
            return problem(error, status=_SERVICE_UNAVAILABLE)
        raise
