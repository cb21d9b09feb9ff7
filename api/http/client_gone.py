"""Noticing that a client went away, while nothing more is read from it."""

from api.http.response import Receive


class ClientGone(Exception):  # not an error of ours: there is nobody left to tell
    """Raised when the client went away before it had its answer: answer nothing."""


async def until_gone(receive: Receive) -> None:
    """Come back when the client has closed its connection; to be cancelled at any time, for nothing is lost by it.

    What is left of its request is passed over.
    """
    while (await receive())["type"] != "http.disconnect":
        pass
