"""Messages to the journal, against a socket that reads them as journald does."""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.log import journal
from daemon.log.journal import MAX_FIELD_BYTES, MAX_MESSAGE_BYTES, Journal, encode, encode_all, field_name
from tests.support.waiting import PATIENCE_S

NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True)


def parse(message: bytes) -> dict[str, str]:
    """The fields of a message, read as journald reads them."""
    fields = {}
    while message:
        line, _, message = message.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", message)
            value, message = message[8:8 + length], message[8 + length + 1:]
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
    return fields


class Reader:
    """The other end: reads only when it is told to."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(PATIENCE_S)
        self._socket.bind(path)

    def read(self) -> dict[str, str]:
        """Wait for the next message."""
        return parse(self._socket.recv(2**20))

    def close(self) -> None:
        """Go away, as a machine without a journal."""
        self._socket.close()
        os.unlink(self.path)


def loss(lost: int) -> Mapping[str, str]:
    """The message that others were lost."""
    return {"LOST": str(lost)}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A journal that listens."""
    made = Reader(str(tmp_path / "journal"))
    yield made
    if os.path.exists(made.path):
        made.close()


@pytest.fixture
def sender(reader: Reader) -> Iterator[Journal]:
    """The service's end."""
    made = Journal(loss, reader.path)
    yield made
    made.close()


@given(st.dictionaries(NAMES, st.text(max_size=200), max_size=8))
def test_message_reads_back_as_the_same_fields_whatever_the_values_hold(fields: dict[str, str]) -> None:
    """No value can end its field, start another one or change one."""
    expected = {name: value.encode("utf-8", "backslashreplace").decode() for name, value in fields.items()}
    assert parse(encode_all(fields)) == expected


@pytest.mark.parametrize("value", ["a\nPRIORITY=0", "\n", "x\n\nMESSAGE=forged\n", "a=b=c", "\x00\x1b[2J", ""])
def test_value_stays_one_field_when_it_looks_like_others(value: str) -> None:
    """A value that was made to look like more fields is stored as what it is."""
    assert parse(encode("INCUS_PATH", value)) == {"INCUS_PATH": value}


@pytest.mark.parametrize("value", ["x" * 5000, "한" * 4096, "x" * 4000 + "한글" * 100])
def test_value_is_cut_between_characters_when_it_is_too_long(value: str) -> None:
    """A field is short enough for `journalctl -o json`, stays UTF-8, and shows that it was cut."""
    cut = parse(encode("INCUS_PATH", value))["INCUS_PATH"]
    assert len("INCUS_PATH=") + len(cut.encode()) <= MAX_FIELD_BYTES
    assert cut.endswith("…")
    assert value.startswith(cut[:-1])


def test_message_stays_below_the_datagram_limit_when_there_are_many_long_fields() -> None:
    """Fields that do not fit are left out; those before them stay."""
    message = encode_all({f"FIELD_{number}": "x" * 5000 for number in range(100)})
    assert len(message) <= MAX_MESSAGE_BYTES
    assert "FIELD_0" in parse(message)


@given(st.from_regex(r"[a-z][a-z0-9_]{0,99}", fullmatch=True))
def test_field_name_is_one_that_journald_takes_whatever_our_key(key: str) -> None:
    """Journald drops silently what is not A-Z, 0-9 and _, begins wrong, or has over 64 characters."""
    name = field_name(key)
    assert len(name) <= 64
    assert name[0] == "I"
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def test_events_arrive_in_their_order(reader: Reader, sender: Journal) -> None:
    """The journal shows events in the order in which they happened."""
    for number in range(5):
        assert sender.send({"N": str(number)})
    assert [reader.read()["N"] for _ in range(5)] == ["0", "1", "2", "3", "4"]


def test_events_are_kept_in_order_while_the_journal_hangs(reader: Reader, sender: Journal) -> None:
    """A journal that does not read delays nobody, and gets everything when it reads again."""
    for number in range(3000):
        assert sender.send({"N": str(number)})
    assert [reader.read()["N"] for _ in range(3000)] == [str(number) for number in range(3000)]
    assert sender.flush(10)


def test_loss_is_reported_when_the_journal_hung_too_long(
    reader: Reader, sender: Journal, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What memory had no room for is lost, and a message says how many."""
    monkeypatch.setattr(journal, "MAX_KEPT_BYTES", 1000)
    for number in range(5000):
        assert sender.send({"N": str(number)})
    received = []
    while True:
        message = reader.read()
        if "LOST" in message:
            break
        received.append(int(message["N"]))
    assert received == list(range(len(received)))
    assert len(received) + int(message["LOST"]) == 5000


def test_send_tells_that_there_is_no_journal(tmp_path: Path) -> None:
    """Without a journal the caller writes its line elsewhere."""
    assert not Journal(loss, str(tmp_path / "none")).send({"N": "1"})


def test_events_wait_for_a_stopped_journal_that_is_the_only_way(reader: Reader) -> None:
    """Where stderr leads to the journal as well, nothing is lost while that is stopped, and it gets everything in order."""
    sender = Journal(loss, reader.path, only_way=True)
    assert sender.send({"N": "0"})
    assert reader.read() == {"N": "0"}
    reader.close()
    for number in range(1, 4):
        assert sender.send({"N": str(number)})
    again = Reader(reader.path)
    assert [again.read()["N"] for _ in range(3)] == ["1", "2", "3"]
    assert sender.flush(10)
    again.close()
    sender.close()


def test_send_works_again_when_the_journal_was_started_anew(reader: Reader, sender: Journal) -> None:
    """A new socket of the same name is found."""
    assert sender.send({"N": "1"})
    reader.close()
    assert not sender.send({"N": "2"})
    again = Reader(reader.path)
    assert sender.send({"N": "3"})
    assert again.read() == {"N": "3"}
    again.close()
