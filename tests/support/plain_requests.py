"""Plain requests, and what the reader of all others finds in them."""

import h11

from api.http.plain_request import PlainRequest
from api.http.request_reader import RequestReader

#: More than this of a body is not made up.
_MOST_MISSING = 2**20


def as_h11_reads(data: bytes) -> tuple[PlainRequest, bytes]:
    """The one request that `data` is or begins, and its version. Raises h11.RemoteProtocolError, or AssertionError if it is no such thing."""
    reader = RequestReader()
    assert reader.at_rest
    reader.receive_data(data)
    request = reader.next_event()
    assert isinstance(request, h11.Request)
    body, missing = b"", 0
    while isinstance(event := reader.next_event(), h11.Data):
        body += event.data
    if event is h11.NEED_DATA:
        missing = int(dict(request.headers)[b"content-length"]) - len(body)
        assert missing > 0
        reader.receive_data(bytes(min(missing, _MOST_MISSING)))
        while isinstance(event := reader.next_event(), h11.Data):
            pass
    if missing > _MOST_MISSING:
        return PlainRequest(request.method, request.target, list(request.headers), body, missing), request.http_version
    assert isinstance(event, h11.EndOfMessage)
    assert reader.trailing_data == (b"", False)
    assert not reader.waits
    reader.send(h11.Response(status_code=204, headers=[]))
    reader.send(h11.EndOfMessage())
    stays = reader.our_state is h11.DONE
    if stays:
        reader.start_next_cycle()
        assert reader.at_rest
    return PlainRequest(request.method, request.target, list(request.headers), body, missing, stays), request.http_version
