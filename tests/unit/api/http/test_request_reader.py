"""Requests as they are read, however they come."""

import contextlib
import random

import h11
import pytest

from api.http.request_reader import PLAIN_LEAST_BYTES, RequestReader, events_of
from api.http.response import NOTHING
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


def large(length: int, fields: bytes = b"") -> bytes:
    """A request with a large body, and the one that follows it."""
    body = random.Random(length).randbytes(length)
    return HEAD + fields + b"Content-Length: %d\r\n\r\n" % length + body + HEAD + b"Content-Length: 3\r\n\r\nabc"


@pytest.mark.parametrize("packet_bytes", [1000, 65536, 2**18, 2**18 + 1, 2**24])
@pytest.mark.parametrize("length", [1, PLAIN_LEAST_BYTES, PLAIN_LEAST_BYTES + 1001, 2**20])
def test_large_body_is_whole_however_it_is_cut(length: int, packet_bytes: int) -> None:
    """Its bytes, as they were sent, and nothing of what follows; the next request is found behind it."""
    sent, reader = large(length), RequestReader()
    found, bodies = list[type](), [b""]
    for at in range(0, len(sent), packet_bytes):
        reader.receive_data(sent[at:at + packet_bytes])
        while (event := reader.next_event()) is not h11.NEED_DATA:
            if event is h11.PAUSED:
                for answer in events_of(NOTHING, is_head=False):
                    reader.send(answer)
                reader.start_next_cycle()
                bodies.append(b"")
            elif type(event) is h11.Data:
                bodies[-1] += event.data
            else:
                found.append(type(event))
    assert found == [h11.Request, h11.EndOfMessage] * 2
    assert bodies == [sent[sent.index(b"\r\n\r\n") + 4:][:length], b"abc"]


def within(*packets: bytes, fields: bytes = b"Connection: close\r\n") -> RequestReader:
    """A reader that has read so much of a body of 1 MiB, and a piece of it before."""
    reader = RequestReader()
    for packet in (HEAD + fields + b"Content-Length: %d\r\n\r\n" % 2**20, b"a piece", *packets):
        reader.receive_data(packet)
        while reader.next_event() is not h11.NEED_DATA:
            pass
    return reader


def test_middle_of_a_large_body_is_handed_on_as_it_is() -> None:
    """The very bytes that were read, copied by nobody, up to the last one."""
    reader, piece = within(), bytes(2**18)
    reader.receive_data(piece)
    event = reader.next_event()
    assert type(event) is h11.Data
    assert event.data is piece
    assert (reader.is_plain, within(bytes(2**20 - 8)).is_plain, within(bytes(2**20 - 7)).is_plain) == (True, False, False)


def test_all_is_known_of_a_request_whose_body_is_not_read() -> None:
    """Who asked to be told is not told any more, the connection is closed as was wanted, and an answer is no news."""
    reader = within(fields=b"Connection: close\r\nExpect: 100-continue\r\n")
    assert (reader.waits, reader.their_state, reader.our_state) == (False, h11.SEND_BODY, h11.SEND_RESPONSE)
    head, *rest = events_of(NOTHING, is_head=False)
    assert b"connection: close" in (reader.send(head) or b"").lower()
    for answer in rest:
        reader.send(answer)
    assert reader.our_state is h11.MUST_CLOSE


def test_large_body_that_is_answered_already_is_read_all_the_same() -> None:
    """The answer goes on where it was."""
    reader = RequestReader()
    reader.receive_data(HEAD + b"Content-Length: %d\r\n\r\n" % 2**20)
    assert type(reader.next_event()) is h11.Request
    for answer in events_of(NOTHING, is_head=False):
        reader.send(answer)
    found = list[type]()
    for size in (1, 2**20 - 1):
        reader.receive_data(bytes(size))
        while isinstance(event := reader.next_event(), h11.Event):
            found.append(type(event))
    assert found == [h11.Data, h11.Data, h11.EndOfMessage]
    reader.start_next_cycle()


def test_large_body_that_ends_early_is_refused() -> None:
    """Nobody takes a part of a file for the file."""
    reader = within(bytes(2**19))
    reader.receive_data(b"")
    with pytest.raises(h11.RemoteProtocolError):
        reader.next_event()
