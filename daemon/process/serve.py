"""`incus-courier serve`: open the doors, say where they are, and keep the processes running behind them."""

import os
import shlex

from daemon.config import Config
from daemon.log import log, setup
from daemon.process.listeners import TLS, Door, open_doors
from daemon.process.output import flush, say
from daemon.process.supervisor import Supervisor
from daemon.process.tls import read_tls
from daemon.state.layout import Layout
from daemon.state.tenure import Tenure, this_host


def serve(config: Config, config_file: str | None, *, identified: bool, take_over: bool) -> int:
    """Run the service until it is told to stop; return the exit code. Raises CannotStart.

    `identified`: nobody gets rights but whom an administrator gave them. `take_over`: use the state although another
    host may be using it.
    """
    setup(config.log, "serve")
    doors = open_doors(config.api.listen, identified=identified, allow_anonymous=config.api.allow_anonymous)
    if any(door.tls for door in doors):
        read_tls(config)
    layout = Layout(config.state.path)
    layout.create()
    # Here, where it ends the service; the workers find that it is this host's.
    tenure = Tenure(layout, this_host(config.state.host))
    tenure.take(take_over=take_over)
    tenure.close()
    welcome(config, doors)
    log("service.started", listen=", ".join(door.address for door in doors), pid=os.getpid())
    try:
        code = Supervisor(config, config_file, doors, with_workers=True).run()
    finally:
        for door in doors:
            door.remove()
    log("service.stopped", pid=os.getpid())
    return code


def welcome(config: Config, doors: list[Door]) -> None:
    """Tell a person where the service listens, and a command to try it with."""
    where = ", ".join(door.address for door in doors)
    lines = [f"incus-courier listens on {where}; its state is in {config.state.path}", "Try it from another terminal:",
             f"  {_curl(doors[0])}"]
    for line in lines:
        say(line)
    flush()


def _curl(door: Door) -> str:
    return f"echo hello | curl -T - {_where(door)}/v1/instances/c1/files/root/hello.txt"


def _where(door: Door) -> str:
    kind, colon, name = door.address.partition("unix:")
    if not colon:
        return f"https://{kind.removeprefix(TLS)}" if door.tls else f"http://{kind}"
    option = "--abstract-unix-socket" if name.startswith("@") else "--unix-socket"
    return f"{option} {shlex.quote(name.removeprefix('@'))} http://courier"
