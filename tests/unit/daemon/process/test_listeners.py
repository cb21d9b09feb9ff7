import os
import socket
from pathlib import Path

import pytest

from daemon.config import Config
from daemon.errors import CannotStart
from daemon.process.listeners import look_at, open_doors
from daemon.process.serve import welcome


def _bound(family: socket.AddressFamily, name: str | tuple[str, int]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(name)
    listener.listen()
    return listener


@pytest.mark.parametrize(("mode", "private"), [(0o600, True), (0o660, True), (0o755, True), (0o666, False), (0o777, False)])
def test_unix_socket_is_private_when_its_permissions_keep_others_out(tmp_path: Path, mode: int, private: bool) -> None:
    """A socket that was passed in is as private as the permissions of its name (systemd's default is 0666)."""
    with _bound(socket.AF_UNIX, str(tmp_path / "s")) as listener:
        (tmp_path / "s").chmod(mode)
        door, = open_doors([f"fd://{os.dup(listener.fileno())}"], allow_anonymous=False)
        with door.socket:
            assert door.private is private


def test_abstract_unix_socket_is_not_private() -> None:
    """A name that is not in the filesystem has no permissions: everyone of the machine may connect."""
    with _bound(socket.AF_UNIX, f"\0courier-test-{os.getpid()}") as listener:
        door, = open_doors([f"fd://{os.dup(listener.fileno())}"], allow_anonymous=False)
        with door.socket:
            assert not door.private


def test_loopback_address_is_not_private() -> None:
    """Everyone of the machine may connect."""
    door, = open_doors(["127.0.0.1:0"], allow_anonymous=False)
    with door.socket:
        assert not door.private


#: Addresses that other machines reach, whether somebody has rights, whether anonymity is wanted, and what is missing.
REACHED = [
    ("0.0.0.0:0", True, False, ["listen on tls:0.0.0.0:"]), ("tls:0.0.0.0:0", False, False, ["give rights to somebody"]),
    ("0.0.0.0:0", False, False, ["give rights to somebody", "listen on tls:0.0.0.0:"]),
    ("tls:[::]:0", True, False, []), ("0.0.0.0:0", False, True, []), ("127.0.0.1:0", False, False, []),
    ("tls:127.0.0.1:0", False, False, []),
]


@pytest.mark.parametrize(("address", "identified", "allow_anonymous", "missing"), REACHED)
def test_address_for_other_machines_needs_tls_and_identities(
    address: str, identified: bool, allow_anonymous: bool, missing: list[str],
) -> None:
    """Or the configuration says in as many words that it needs neither; what is missing is said."""
    for look in (open_doors, look_at):
        try:
            for door in look([address], allow_anonymous=allow_anonymous, identified=identified) or []:
                door.socket.close()
            said = ""
        except CannotStart as error:
            said = f"{error.code}: {error.detail}"
        assert said.startswith("unsafe_listen" if missing else "")
        assert bool(said) is bool(missing)
        for text in (*missing, *(["api.allow_anonymous = true"] if missing else [])):
            assert text in said


def test_tls_address_is_called_so_and_a_child_is_told() -> None:
    """The child inherits the descriptor, and knows what is spoken there."""
    first, = open_doors(["tls:127.0.0.1:0"], allow_anonymous=False)
    assert first.address == f"tls:127.0.0.1:{first.socket.getsockname()[1]}"
    assert first.inherited == f"tls:fd://{first.socket.fileno()}"
    second, = open_doors([first.inherited], allow_anonymous=False)
    assert (second.tls, second.address) == (True, first.address)
    first.socket.detach()
    second.socket.close()


def test_no_tls_is_spoken_at_a_unix_socket(tmp_path: Path) -> None:
    """Also not at one that was passed in."""
    with _bound(socket.AF_UNIX, str(tmp_path / "s")) as listener, pytest.raises(CannotStart, match="Unix socket"):
        open_doors([f"tls:fd://{os.dup(listener.fileno())}"], allow_anonymous=False)


def test_welcome_has_a_line_to_paste_for_a_tls_address(capsys: pytest.CaptureFixture[str]) -> None:
    """It says https."""
    door, = open_doors(["tls:127.0.0.1:0"], allow_anonymous=False)
    with door.socket as listener:
        welcome(Config(), [door])
        assert f"curl -T - https://127.0.0.1:{listener.getsockname()[1]}/v1/" in capsys.readouterr().out


def test_welcome_has_a_line_to_paste_for_a_unix_socket_that_was_passed_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    """The line names the socket by its path, whoever opened it."""
    with _bound(socket.AF_UNIX, str(tmp_path / "s")) as listener:
        door, = open_doors([f"fd://{os.dup(listener.fileno())}"], allow_anonymous=False)
        with door.socket:
            welcome(Config(), [door])
    assert f"curl -T - --unix-socket {tmp_path}/s http://courier/v1/" in capsys.readouterr().out


def test_welcome_has_a_line_to_paste_for_an_abstract_socket(capsys: pytest.CaptureFixture[str]) -> None:
    """They have an option of their own."""
    name = f"courier-test-{os.getpid()}"
    with _bound(socket.AF_UNIX, f"\0{name}") as listener:
        door, = open_doors([f"fd://{os.dup(listener.fileno())}"], allow_anonymous=False)
        with door.socket:
            welcome(Config(), [door])
    assert f"curl -T - --abstract-unix-socket {name} http://courier/v1/" in capsys.readouterr().out


def test_welcome_quotes_a_socket_for_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path with a space in it can be pasted too."""
    (tmp_path / "a b").mkdir()
    door, = open_doors([f"unix:{tmp_path}/a b/s"], allow_anonymous=False)
    with door.socket:
        welcome(Config(), [door])
    assert f"--unix-socket '{tmp_path}/a b/s' http://courier/v1/" in capsys.readouterr().out
