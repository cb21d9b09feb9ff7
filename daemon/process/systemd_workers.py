"""Under systemd, start a worker for each shard and stop those that are too many.

The configuration is read here, once for each start of the service, so that its `queue.shards` is what counts.
Nothing is waited for: the service manager does the starting, and says in each worker's own status how it went.
"""

import argparse
import subprocess
from collections.abc import Iterable
from typing import Final

from daemon import config as configuration
from daemon.errors import CourierError
from daemon.process.exit_status import EXIT_OK, end_with

_PREFIX: Final = "incus-courier-worker@"
_SUFFIX: Final = ".service"
#: The service manager answers at once; if it does not, this unit fails and the next start tries again.
_TIMEOUT_S: Final = 20.0


def unit(shard: int) -> str:
    """The name of the unit that serves a shard."""
    return f"{_PREFIX}{shard}{_SUFFIX}"


def plan(shards: int, loaded: Iterable[str]) -> tuple[list[str], list[str]]:
    """The units to start, and those of `loaded` to stop, so that each of `shards` has a worker and no other one."""
    wanted = [unit(shard) for shard in range(shards)]
    return wanted, sorted(set(loaded) - set(wanted))


def main() -> int:
    """Have the workers started and stopped; return the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m daemon.process.systemd_workers", description=__doc__)
    parser.add_argument("--config", help="the configuration file")
    try:
        config = configuration.load(configuration.find_file(parser.parse_args().config))
    except CourierError as error:
        return end_with("incus-courier workers", error)
    start, stop = plan(config.queue.shards, _loaded())
    if stop:
        _systemctl("stop", "--no-block", *stop)
    _systemctl("start", "--no-block", *start)
    return EXIT_OK


def _loaded() -> list[str]:
    listed = _systemctl("list-units", "--all", "--plain", "--no-legend", f"{_PREFIX}*{_SUFFIX}")
    return [line.split()[0] for line in listed.splitlines() if line.strip()]


def _systemctl(*arguments: str) -> str:
    done = subprocess.run(["systemctl", *arguments], stdout=subprocess.PIPE, text=True, check=True, timeout=_TIMEOUT_S)
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
