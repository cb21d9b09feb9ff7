"""An installed API has no network, but for an address that nobody else opens."""

from pathlib import Path

import pytest

from daemon.process import systemd_network
from daemon.process.systemd_network import SETTINGS, left_to_the_api

ROOT = Path(__file__).parents[4]
_DOOR = "unix:/run/incus-courier/api.sock"


@pytest.mark.parametrize(("listen", "opened", "left"), [
    ([_DOOR], [], []),
    ([_DOOR, "127.0.0.1:8420"], ["/run/incus-courier/api.sock"], ["127.0.0.1:8420"]),
    ([_DOOR, "127.0.0.1:8420"], ["/run/incus-courier/api.sock", "127.0.0.1:8420"], []),
    (["fd://3", "tls:fd://4"], [], []),
    (["tls:0.0.0.0:8443", "[::1]:8420"], ["0.0.0.0:8443"], ["[::1]:8420"]),
    (["tls:0.0.0.0:8443"], [], ["tls:0.0.0.0:8443"]),
])
def test_addresses_that_systemd_does_not_open_are_left_to_the_api(
        listen: list[str], opened: list[str], left: list[str]) -> None:
    """TLS makes no difference to who opens an address; Unix sockets and descriptors need no network."""
    assert left_to_the_api(listen, opened) == left


def test_installation_writes_what_the_example_says() -> None:
    """Who copies the example and whom an upgrade has found in need get the same."""
    example = (ROOT / "systemd/examples/tcp-address.conf").read_text().splitlines()
    assert [line for line in example if line and not line.startswith("#")] == ["[Service]", *SETTINGS]


def test_network_is_given_once_and_only_where_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade closes no address; what somebody has made of the file since stays, and without need there is none."""
    drop_in = tmp_path / "incus-courier-api.service.d/tcp-address.conf"
    monkeypatch.setattr(systemd_network, "_DROP_IN", drop_in)
    config = tmp_path / "config.toml"
    monkeypatch.setattr("sys.argv", ["systemd_network", "--config", str(config)])
    config.write_text(f'[api]\nlisten = ["{_DOOR}"]\n')
    assert systemd_network.main() == 0
    assert not drop_in.exists()
    config.write_text(f'[api]\nlisten = ["{_DOOR}", "127.0.0.1:1"]\n')
    assert systemd_network.main() == 0
    assert set(SETTINGS) < set(drop_in.read_text().splitlines())
    drop_in.write_text("mine")
    assert systemd_network.main() == 0
    assert drop_in.read_text() == "mine"
    config.write_text("[api]\nlisten = 1\n")
    assert systemd_network.main() == 0
