"""Requests that come whole, and what the reader of all others finds in them."""

import h11

from api.http.request_reader import RequestReader
from api.http.whole_request import WholeRequest


def as_h11_reads(data: bytes) -> tuple[WholeRequest, bytes]:
    """The one request that `data` is, and its version. Raises h11.RemoteProtocolError, or AssertionError if it is no such thing."""
    reader = RequestReader()
    assert reader.at_rest
    reader.receive_data(data)
    request = reader.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := reader.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert reader.trailing_data == (b"", False)
    assert not reader.waits
    reader.send(h11.Response(status_code=204, headers=[]))
    reader.send(h11.EndOfMessage())
    # Raises for a connection that does not stay.
    reader.start_next_cycle()
    assert reader.at_rest
    return WholeRequest(request.method, request.target, list(request.headers), body), request.http_version
