"""Which workers are started and stopped for a number of shards."""

import os
from pathlib import Path

import pytest

from daemon.process import systemd_workers
from daemon.process.systemd_workers import plan, unit


@pytest.mark.parametrize(("shards", "loaded", "stopped"), [
    (2, [], []),
    (3, [0, 1], []),
    (1, [0, 1, 2], [1, 2]),
    (2, [7], [7]),
])
def test_plan_has_one_worker_for_each_shard(shards: int, loaded: list[int], stopped: list[int]) -> None:
    """Every shard's worker is started; a worker without a shard is stopped."""
    assert plan(shards, [unit(shard) for shard in loaded]) == (
        [unit(shard) for shard in range(shards)], [unit(shard) for shard in stopped])


def test_workers_are_started_and_stopped_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service manager is asked what it has, told what is too many, and told what is wanted."""
    calls = tmp_path / "calls"
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f"""#!/bin/sh
echo "$*" >>{calls}
[ "$1" != list-units ] || echo "incus-courier-worker@5.service loaded active running a worker"
""")
    systemctl.chmod(0o755)
    config = tmp_path / "config.toml"
    config.write_text("[queue]\nshards = 2\n")
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    monkeypatch.setattr("sys.argv", ["fleet", "--config", str(config)])
    assert systemd_workers.main() == 0
    assert calls.read_text().splitlines()[1:] == [
        "stop --no-block incus-courier-worker@5.service",
        "start --no-block incus-courier-worker@0.service incus-courier-worker@1.service",
    ]


def test_wrong_configuration_ends_with_its_own_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 78 says that a restart does not help."""
    config = tmp_path / "config.toml"
    config.write_text("[queue]\nshards = 0\n")
    monkeypatch.setattr("sys.argv", ["fleet", "--config", str(config)])
    assert systemd_workers.main() == 78
