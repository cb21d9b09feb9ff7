"""What a browser is told about pages of other sites that may send here: CORS, as Fetch has it. Pure functions.

Only pages of the sites that the configuration names are told anything, and never that they may send cookies or client
certificates: they show a token, or nothing. Source: https://fetch.spec.whatwg.org, HTTP extensions.
"""

from typing import Any, Final

from api.http.parameters import Headers
from api.http.response import TEXT, Answer, Event, Send

#: What a page may be told of an answer, besides what any may.
EXPOSED: Final = (
    "Location", "Retry-After", "RateLimit", "RateLimit-Policy", "Idempotency-Replayed", "Preference-Applied", "Task-Id",
    "Cell-Name", "Cell-Address", "traceparent", "Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size",
    "Tus-Checksum-Algorithm",
    "Upload-Offset", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Expires", "Upload-Complete",
    "Upload-Limit", "Upload-Draft-Interop-Version")
#: What it may send, besides what any may. A header that a proxy in front may believe is not among these.
ALLOWED: Final = (
    "Authorization", "Content-Type", "Content-Digest", "Repr-Digest", "Idempotency-Key", "If-Match", "If-None-Match",
    "Last-Event-ID", "Prefer", "traceparent", "Tus-Resumable", "Upload-Checksum", "Upload-Complete", "Upload-Concat",
    "Upload-Defer-Length", "Upload-Draft-Interop-Version", "Upload-Length", "Upload-Metadata", "Upload-Offset",
    "X-HTTP-Method-Override", "X-Request-ID", "X-Requested-With", "X-Container-Name", "X-Create-Dirs", "X-File-Gid",
    "X-File-Mode", "X-File-Path", "X-File-Uid", "X-Host-Path")
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
#: Seconds for which a browser need not ask again.
MAX_AGE_S: Final = 3600


def is_preflight(method: str, headers: Headers) -> bool:
    """True when a browser asks whether a page may send something."""
    return method == "OPTIONS" and b"access-control-request-method" in headers


def preflight_answer() -> Answer:
    """What it is answered about a page of a configured site; `telling` adds which. Old browsers want a 200."""
    return Answer(200, TEXT, b"", (
        ("Access-Control-Allow-Methods", ", ".join(METHODS)), ("Access-Control-Allow-Headers", ", ".join(ALLOWED)),
        ("Access-Control-Max-Age", str(MAX_AGE_S))))


def telling(send: Send, origin: bytes) -> Send:
    """Send as `send` does, and tell the browser that the page of `origin` may see the answer."""
    told = [(b"access-control-allow-origin", origin), (b"vary", b"origin"),
            (b"access-control-expose-headers", ", ".join(EXPOSED).encode("ascii"))]

    async def send_and_tell(event: Event) -> None:
        if event["type"] == "http.response.start":
            headers: list[Any] = event.get("headers", [])
            event = {**event, "headers": [*headers, *told]}
        await send(event)

    return send_and_tell
