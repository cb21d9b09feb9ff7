"""`incus-courier serve`: open the doors, say where they are, and keep the processes running behind them."""

import os
import sys

from daemon import notify
from daemon.config import Config
from daemon.door import Door, open_doors
from daemon.layout import Layout
from daemon.logs import log, setup
from daemon.supervisor import Supervisor


def serve(config: Config, config_file: str | None) -> int:
    """Run the service until it is told to stop; return the exit code. Raises CannotStart."""
    setup(config.log, "serve")
    doors = open_doors(config.api.listen, allow_anonymous=config.api.allow_anonymous)
    Layout(config.state.path).create()
    for door in doors:
        os.set_inheritable(door.socket.fileno(), True)
    _welcome(config, doors)
    log("service.started", listen=", ".join(door.address for door in doors), pid=os.getpid())
    notify.ready()
    try:
        code = Supervisor(config, config_file, [door.socket.fileno() for door in doors]).run()
    finally:
        notify.stopping()
        for door in doors:
            door.remove()
    log("service.stopped", pid=os.getpid())
    return code


def _welcome(config: Config, doors: list[Door]) -> None:
    where = ", ".join(door.address for door in doors)
    lines = [f"incus-courier listens on {where}; its state is in {config.state.path}", "Try it from another terminal:",
             f"  {_curl(doors[0])}"]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _curl(door: Door) -> str:
    where = f"--unix-socket {door.path} http://courier" if door.private else f"http://{door.address}"
    return f"echo hello | curl -T - {where}/v1/instances/c1/files/root/hello.txt"
