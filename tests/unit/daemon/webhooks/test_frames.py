from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket

import pytest

from daemon.webhooks import frames
from daemon.webhooks.frames import BadFrame
from daemon.webhooks.schedule import TryAnswer


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"NaN"])
def test_frame_that_is_none_is_refused(data: bytes) -> None:
    """Each side takes objects alone."""
    with pytest.raises(BadFrame):
        frames.unpack(data)


@pytest.mark.parametrize("values", [
    {}, {"number": 1, "webhook": "a", "id": "x\r\ny: z", "body": ""}, {"number": "1", "webhook": "a", "id": "x", "body": ""},
    {"number": 1, "webhook": "a", "id": "ü", "body": ""}, {"number": 1, "webhook": None, "id": "x", "body": ""}])
def test_request_that_is_not_whole_is_refused(values: dict[str, object]) -> None:
    """So no message can bring a field of its own into what is sent."""
    with pytest.raises(BadFrame):
        frames.read_request(values)


@pytest.mark.parametrize("changed", [
    {"number": None}, {"status": "200"}, {"status": 99}, {"detail": "x" * 301}, {"detail": None}, {"retry_after_s": -1},
    {"retry_after_s": float("nan")}, {"retry_after_s": 1e300}])
def test_answer_that_is_not_whole_is_refused(changed: dict[str, object]) -> None:
    """The worker believes nothing that it could not keep."""
    values = {"number": 1, "status": 200, "detail": "HTTP 200", "retry_after_s": None}
    assert frames.read_reply(values) == (1, TryAnswer(status=200, detail="HTTP 200"))
    with pytest.raises(BadFrame):
        frames.read_reply({**values, **changed})


def test_long_frame_and_other_version_are_refused() -> None:
    """Before anything is made of them."""
    with pytest.raises(BadFrame):
        frames.length_of(b"\xff\xff\xff\xff")
    with pytest.raises(BadFrame):
        frames.pack({"x": "y" * frames.MOST_BYTES})
    with pytest.raises(BadFrame, match="version 2"):
        frames.check_greeting({"protocol": 2})


def test_socket_is_reached_however_long_its_path_is(tmp_path: Path) -> None:
    """A state directory may be anywhere."""
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    with socket(AF_UNIX, SOCK_STREAM) as listener, frames.reachable(deep / "sender.sock") as name:
        listener.bind(name)
        listener.listen()
        frames.connect(deep / "sender.sock", 1.0).close()
    with pytest.raises(OSError, match="No such file"):
        frames.connect(tmp_path / "none" / "sender.sock", 1.0)
