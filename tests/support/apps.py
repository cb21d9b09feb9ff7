"""Apps for tests of the server."""

from api.http.response import Receive, Scope, Send, send_answer, text_answer


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request with one word."""
    await send_answer(send, text_answer(200, "hello"))
