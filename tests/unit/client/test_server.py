"""Which service a command speaks to, and as whom."""

from pathlib import Path

import pytest

from client.http import HttpClient, NoAnswer, Response
from client.main import app
from client.retry import passes, pause_s
from client.server import DEFAULT, ServerOptions, find_server, is_named, parse_address
from daemon.process.exit_status import Misused, Unable


@pytest.mark.parametrize(("text", "host", "port", "base", "socket"), [
    ("http://127.0.0.1:8420", "127.0.0.1", 8420, "", None),
    ("http://[::1]:9000/courier/", "::1", 9000, "/courier", None),
    ("https://courier.example.org", "courier.example.org", 443, "", None),
    ("unix:/run/api.sock", "localhost", 0, "", "/run/api.sock"),
    ("unix:///run/api.sock", "localhost", 0, "", "/run/api.sock"),
])
def test_address_is_read(text: str, host: str, port: int, base: str, socket: str | None) -> None:
    """Each way to write where a service is leads there."""
    address = parse_address(text)
    assert (address.host, address.port, address.base, address.socket) == (host, port, base, socket)


@pytest.mark.parametrize("text", [
    "127.0.0.1:8420", "ftp://host", "http://", "http://host:port", "http://host:99999", "http://host/?a=b", "http://me:secret@host",
    "http://host/a b", "http://host\r\nX: y", "unix:", "https://höst\u202e",
])
def test_anything_else_is_no_address(text: str) -> None:
    """What cannot be understood is said, not guessed, and no password is taken from an address."""
    with pytest.raises(Misused):
        parse_address(text)


@pytest.mark.parametrize("words", [["tasks", "list"], ["explain", "c1"], ["push", "FILE", "c1/"]])
def test_command_that_shows_a_token_to_others_on_the_way_says_so(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    """Whichever command it is, before it asks for anything."""
    (tmp_path / "f").touch()
    monkeypatch.setenv("INCUS_COURIER_SERVER", "http://far.example")
    monkeypatch.setenv("INCUS_COURIER_TOKEN", "icour_secret")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(HttpClient, "request", _no_answer)
    with pytest.raises((Unable, SystemExit)):
        app([str(tmp_path / "f") if word == "FILE" else word for word in words], standalone_mode=False)
    assert "http://far.example is plain HTTP: others on the way can read the token" in capsys.readouterr().err


def _no_answer(*_: object, **__: object) -> Response:
    raise NoAnswer("gone", passes=False)


def test_what_was_typed_counts_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address and the token that were typed win; without any, it is this machine's own, an installed one first, as nobody."""
    monkeypatch.setattr("client.server.INSTALLED_SOCKET", str(tmp_path / "api.sock"))
    (tmp_path / "token").write_text("icour_typed\n")
    around = {"INCUS_COURIER_SERVER": "http://around:1", "INCUS_COURIER_TOKEN": "icour_around"}
    typed = find_server(ServerOptions(server="http://typed:2", token_file=tmp_path / "token"), around)
    assert (typed.address.name, typed.token) == ("http://typed:2", "icour_typed")
    assert (named := find_server(ServerOptions(), around)).address.name == "http://around:1"
    assert named.token == "icour_around"
    assert named.shows_token
    assert (own := find_server(ServerOptions(), {})).address.name == DEFAULT
    (tmp_path / "api.sock").touch()
    assert find_server(ServerOptions(), {}).address.socket == str(tmp_path / "api.sock")
    assert own.token is None
    assert not own.shows_token
    assert (is_named(ServerOptions(), around), is_named(ServerOptions(), {})) == (True, False)
    # A configuration file that was typed means this machine, whatever is in the environment.
    assert not is_named(ServerOptions(), around, "config.toml")
    assert is_named(ServerOptions(server="http://far:1"), around, "config.toml")


def test_files_that_are_of_no_use_are_named(tmp_path: Path) -> None:
    """A token that is none, a file that is missing, and TLS files that are none stop the command."""
    (tmp_path / "token").write_text("two words\n")
    for options in (ServerOptions(token_file=tmp_path / "token"), ServerOptions(token_file=tmp_path / "none"),
                    ServerOptions(server="https://h", ca=tmp_path / "token"),
                    ServerOptions(server="https://h", certificate=tmp_path / "token")):
        with pytest.raises(Unable):
            find_server(options, {})
    with pytest.raises(Misused):
        find_server(ServerOptions(server="http://h", ca=tmp_path / "token"), {})


def test_pauses_grow_and_heed_what_the_service_asks_for() -> None:
    """It is tried ever less often, never earlier than Retry-After says, and no broken service has anybody wait for ever."""
    assert [pause_s(tries, None, 1.0) for tries in (1, 2, 3, 50)] == [0.25, 0.5, 1.0, 15.0]
    assert pause_s(1, Response(503, {"retry-after": "10"}, b""), 0.0) == 10.125
    assert pause_s(1, Response(503, {"retry-after": "1" * 15}, b""), 0.0) < 301
    assert pause_s(1, Response(503, {"retry-after": "Mon, 30 Nov"}, b""), 0.0) == 0.125
    assert [passes(Response(status, {}, b"")) for status in (503, 429, 423, 404, 403, 202)] == [True, True, True, False, False, False]
