"""Requests as they are read, however they come."""

import contextlib

import h11
import pytest

from api.http.request_reader import RequestReader
from tests.support.framing import DOUBTFUL

HEAD = b"PUT /v1/instances/c1/files/a HTTP/1.1\r\nHost: localhost\r\n"
LEGAL = [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n1;a=\"b\tc\"\r\nx\r\n2\r\nyz\r\n00\r\nX: a\r\nY: b\r\n\r\n"]


def read(*packets: bytes) -> list[type | str]:
    """What is found in them: the kinds of events, several pieces of data as one, and the code of a refusal."""
    reader, found = RequestReader(), list[type | str]()
    with contextlib.suppress(h11.RemoteProtocolError):
        for packet in packets:
            reader.receive_data(packet)
            while isinstance(event := reader.next_event(), h11.Event):
                found += [type(event)] if found[-1:] != [type(event)] else []
        return found
    return [*found, reader.code]


def ways_to_cut(sent: bytes) -> list[list[bytes]]:
    """In one packet, in a packet for each byte, and in two wherever they are cut."""
    return [[sent], [sent[at:at + 1] for at in range(len(sent))], *([sent[:at], sent[at:]] for at in range(1, len(sent)))]


@pytest.mark.parametrize("sent", LEGAL)
def test_legal_request_is_read_however_it_is_cut(sent: bytes) -> None:
    """Whole at its end, and nothing is refused before."""
    assert [found for packets in ways_to_cut(HEAD + sent) if (found := read(*packets)) != [h11.Request, h11.Data, h11.EndOfMessage]] == []


@pytest.mark.parametrize("sent", [sent.encode() for sent, _ in DOUBTFUL])
def test_doubtful_request_is_refused_however_it_is_cut(sent: bytes) -> None:
    """No packet hides what is wrong with a line, and no such request ends well."""
    assert {read(*packets)[-1] for packets in ways_to_cut(HEAD + sent)} <= {"bad_request", "unknown_coding"}


def test_client_waits_until_it_was_answered_or_has_sent_something() -> None:
    """Whoever asked to be told and did not wait for it need not be told."""
    reader = RequestReader()
    reader.receive_data(HEAD + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    assert type(reader.next_event()) is h11.Request
    assert (reader.waits, reader.they_are_waiting_for_100_continue) == (True, False)
    reader.receive_data(b"x")
    assert type(reader.next_event()) is h11.Data
    assert not reader.waits
