"""The command line: `incus-courier`. Thin: each command reads the configuration and calls one thing."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from daemon import config as configuration
from daemon.config import Config
from daemon.errors import CourierError
from daemon.exits import complain, exit_code
from daemon.layout import Layout
from daemon.privileges import drop_to_owner

app = typer.Typer(
    name="incus-courier", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="A durable upload gateway for Incus instances.",
)
ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="The configuration file; else $INCUS_COURIER_CONFIG.")]


class Settings:
    """The configuration file that the command line named, for the commands."""

    file: str | None = None


@app.callback()
def options(config: ConfigOption = None) -> None:
    """Remember the options that come before the command."""
    Settings.file = config


def load(config: str | None = None) -> Config:
    """The configuration; ends the process with its complaint when it is wrong."""
    Settings.file = config or Settings.file
    return configuration.load(configuration.find_file(Settings.file))


def load_for_state(config: str | None = None) -> Config:
    """The configuration, for a command that opens the state: root has become the state's owner on return."""
    loaded = load(config)
    drop_to_owner(Layout(loaded.state.path))
    return loaded


@app.command()
def serve(config: ConfigOption = None) -> None:
    """Run the whole service in the foreground: the API and a worker for each shard."""
    from daemon.serve import serve as run

    raise SystemExit(run(load(config), _absolute(Settings.file)))


@app.command()
def api(config: ConfigOption = None) -> None:
    """Run one API process."""
    load(config)
    _become("api", *_file_option())


@app.command()
def worker(
    shard: Annotated[int, typer.Option(help="Which shard to serve, from 0 on.")], config: ConfigOption = None,
) -> None:
    """Run the worker of one shard."""
    load(config)
    _become("worker", "--shard", str(shard), *_file_option())


@app.command()
def check(config: ConfigOption = None) -> None:
    """Check configuration, directories, SQLite and the connection to Incus, and say how to mend what is not well."""
    from daemon.check import check as run

    raise SystemExit(run(load(config), _absolute(Settings.file)))


@app.command()
def status(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, config: ConfigOption = None,
) -> None:
    """Show what waits, per shard and instance. Fails when there are dead letters or a shard has no worker."""
    from daemon.status import status as run

    raise SystemExit(run(load_for_state(config), as_json=json))


def _file_option() -> list[str]:
    return ["--config", Settings.file] if Settings.file else []


def _absolute(file: str | None) -> str | None:
    return str(Path(file).absolute()) if file else None


def _become(module: str, *arguments: str) -> NoReturn:
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])


def main() -> None:
    """The entry point of the installed command."""
    try:
        app()
    except CourierError as error:
        complain("incus-courier", error)
        raise SystemExit(exit_code(error)) from None
