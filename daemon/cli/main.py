"""The command line: `incus-courier`. Thin: each command reads the configuration and calls one thing."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from daemon import __version__
from daemon import config as configuration
from daemon.cli.grant_options import GRANT_OPTIONS
from daemon.config import Config
from daemon.process.entry import run_to_exit
from daemon.process.isolated import python
from daemon.process.output import say
from daemon.process.privileges import drop_to_owner, invoking_user
from daemon.state.layout import Layout

app = typer.Typer(
    name="incus-courier", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="A durable upload gateway for Incus instances.",
)
ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="The configuration file; else $INCUS_COURIER_CONFIG.")]


class ChosenFile:
    """The configuration file that the command line named, for the commands."""

    file: str | None = None


def _tell_version(wanted: bool) -> None:
    if wanted:
        say(f"incus-courier {__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")]


@app.callback()
def options(config: ConfigOption = None, version: VersionOption = False) -> None:
    """Remember the options that come before the command."""
    ChosenFile.file = config


def load(config: str | None = None) -> Config:
    """The configuration; ends the process with its complaint when it is wrong."""
    ChosenFile.file = config or ChosenFile.file
    return configuration.load(configuration.find_file(ChosenFile.file))


def load_for_state(config: str | None = None) -> Config:
    """The configuration, for a command that opens the state: root has become the state's owner on return."""
    loaded = load(config)
    drop_to_owner(Layout(loaded.state.path))
    return loaded


TakeOverOption = Annotated[bool, typer.Option(
    "--take-over", help="Use the state although another host may be using it: it cannot reach the storage any more.")]


@app.command()
def serve(take_over: TakeOverOption = False, config: ConfigOption = None) -> None:
    """Run the whole service in the foreground: the API, a worker for each shard, and the sender of webhooks."""
    from daemon.access.openness import only_known_may
    from daemon.process.serve import serve as run

    loaded = load(config)
    identified = only_known_may(loaded, configuration.find_file(ChosenFile.file))
    raise SystemExit(run(loaded, _absolute(ChosenFile.file), identified=identified,
                         take_over=take_over))


@app.command()
def api(config: ConfigOption = None) -> None:
    """Run one API process."""
    load(config)
    _become("api", *_file_option())


@app.command()
def worker(
    shard: Annotated[int, typer.Option(help="Which shard to serve, from 0 on.")], take_over: TakeOverOption = False,
    config: ConfigOption = None,
) -> None:
    """Run the worker of one shard."""
    load(config)
    _become("worker", "--shard", str(shard), *(["--take-over"] if take_over else []), *_file_option())


@app.command()
def sender(config: ConfigOption = None) -> None:
    """Run the process that sends webhooks."""
    load(config)
    _become("sender", *_file_option())


@app.command()
def check(
    json: Annotated[bool, typer.Option("--json", help="Print JSON, in one line.")] = False, config: ConfigOption = None,
) -> None:
    """Check configuration, machine, state and the connection to Incus, and say how to mend what is not well."""
    from daemon.cli.check import check as run

    raise SystemExit(run(load(config), _absolute(ChosenFile.file), as_json=json))


@app.command()
def fsck(
    repair: Annotated[bool, typer.Option("--repair", help="Put right what is wrong. Stop the workers first.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, one line each.")] = False,
    config: ConfigOption = None,
) -> None:
    """Compare the queue with the spool, in full. Fails when something is not right and stays so."""
    from daemon.cli.fsck import fsck as run

    raise SystemExit(run(load_for_state(config), repair=repair, as_json=json))


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one line each.")]

cell = typer.Typer(no_args_is_help=True, help="Have instances go from one cell to another (docs/scaling.md).")
app.add_typer(cell, name="cell")
MovingArgument = Annotated[str, typer.Argument(metavar="[REMOTE:][PROJECT/]INSTANCE", help="The instance.")]


@cell.command("release")
def release_instance(
    instance: MovingArgument,
    timeout: Annotated[float, typer.Option(
        metavar="SECONDS", min=0, help="How long to wait for what is on the way.")] = 300,
    config: ConfigOption = None,
) -> None:
    """Let go of an instance that [[cells]] gives to another cell: once all is delivered, and for good."""
    from daemon.cli import cell

    raise SystemExit(cell.release(load_for_state(config), instance, timeout_s=timeout))


@cell.command("adopt")
def adopt_instance(instance: MovingArgument, config: ConfigOption = None) -> None:
    """Take an instance back that this cell had let go of."""
    from daemon.cli import cell

    raise SystemExit(cell.adopt(load_for_state(config), instance))


token = typer.Typer(no_args_is_help=True, help="Make, show and end tokens: who shows one may do what it allows.")
app.add_typer(token, name="token")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The token's name.")]


def _with_grant_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each key of a grant; what is given comes in its keyword arguments."""
    own = [parameter for parameter in inspect.signature(command).parameters.values()
           if parameter.kind is not parameter.VAR_KEYWORD]
    of_grant = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[
            option.type, typer.Option(option.declared, metavar=option.metavar, help=option.help, show_default=False)])
        for key, option in GRANT_OPTIONS.items()]
    command.__dict__["__signature__"] = inspect.Signature([*own, *of_grant])
    return command


@token.command("new")
@_with_grant_options
def new_token(
    name: NameArgument,
    expires: Annotated[str | None, typer.Option(
        metavar="WHEN", help="When it ends: 90d, 12h, or a date, 2027-01-01 (UTC). Without it: never.")] = None,
    under: Annotated[str | None, typer.Option(
        metavar="NAME", help="A token that bounds this one: it allows no more than that, and ends with it.")] = None,
    json: JsonOption = False, config: ConfigOption = None, **grant: object,
) -> None:
    """Make a token, and write it once, as the last line of standard output."""
    from daemon.cli import token

    raise SystemExit(token.new(_config_file(config), name, grant, expires=expires, under=under, as_json=json))


@token.command("list")
def list_tokens(
    every: Annotated[bool, typer.Option("--all", help="Those that were revoked, too.")] = False,
    json: JsonOption = False, config: ConfigOption = None,
) -> None:
    """List tokens: what each allows, and how it stands."""
    from daemon.cli import token

    raise SystemExit(token.list_tokens(_config_file(config), every=every, as_json=json))


@token.command("show")
def show_token(name: NameArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show all that is known of a token; the token itself is kept nowhere."""
    from daemon.cli import token

    raise SystemExit(token.show(_config_file(config), name, as_json=json))


@token.command("revoke")
def revoke_token(name: NameArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """End a token now, and those under it."""
    from daemon.cli import token

    raise SystemExit(token.revoke(_config_file(config), name, as_json=json))


@token.command("rotate")
def rotate_token(
    name: NameArgument,
    keep: Annotated[str, typer.Option(metavar="TIME", help="How long the old one stays valid beside it.")] = "24h",
    json: JsonOption = False, config: ConfigOption = None,
) -> None:
    """Make a new token in the place of an old one, and write it once, as the last line of standard output."""
    from daemon.cli import token

    raise SystemExit(token.rotate(_config_file(config), name, keep=keep, as_json=json))


webhooks = typer.Typer(no_args_is_help=True, help="Look at what webhooks are told, and have it sent again.")
app.add_typer(webhooks, name="webhooks")

HookArgument = Annotated[str, typer.Argument(metavar="NAME", help="The webhook's name.")]


@webhooks.command("list")
def list_webhooks(json: JsonOption = False, config: ConfigOption = None) -> None:
    """List webhooks: what waits for each, what was given up, and how its last message fared."""
    from daemon.cli import webhooks

    raise SystemExit(webhooks.list_webhooks(load_for_state(config), as_json=json))


@webhooks.command("show")
def show_webhook(
    what: Annotated[str, typer.Argument(metavar="NAME|ID", help="A webhook, or one message.")],
    state: Annotated[str | None, typer.Option(
        "--state", metavar="STATE", help="Only messages that are pending, delivered or failed.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Go on after this message.")] = None,
    json: JsonOption = False, config: ConfigOption = None,
) -> None:
    """Show the messages to a webhook, newest first; or all of one message."""
    from daemon.cli import webhooks

    raise SystemExit(webhooks.show(load_for_state(config), what, state=state, limit=limit, after=after, as_json=json))


@webhooks.command()
def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Messages to send again.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that were given up.")] = False,
    webhook: Annotated[str | None, typer.Option("--webhook", metavar="NAME", help="Only those to this one.")] = None,
    json: JsonOption = False, config: ConfigOption = None,
) -> None:
    """Send messages again, each under the id that it has."""
    from daemon.cli import webhooks

    loaded = load_for_state(config)
    raise SystemExit(webhooks.replay(loaded, ids or (), failed=failed, webhook=webhook, as_json=json))


@webhooks.command()
def enable(name: HookArgument, config: ConfigOption = None) -> None:
    """Send to a webhook again, what has waited first."""
    _switch(name, config, on=True)


@webhooks.command()
def disable(name: HookArgument, config: ConfigOption = None) -> None:
    """Send nothing to a webhook until it is enabled; what happens is kept for it."""
    _switch(name, config, on=False)


@webhooks.command("test")
def try_webhook(name: HookArgument, config: ConfigOption = None) -> None:
    """Send a message of the type webhook.test, and say how it fared."""
    from daemon.cli import webhooks

    raise SystemExit(webhooks.test(load_for_state(config), name))


def _switch(name: str, config: str | None, *, on: bool) -> NoReturn:
    from daemon.cli import webhooks

    asked_by = invoking_user()
    raise SystemExit(webhooks.switch(load_for_state(config), name, on=on, asked_by=asked_by))


def _config_file(config: str | None) -> Path | None:
    """The configuration file, unread: tokens can be revoked also while it is wrong."""
    ChosenFile.file = config or ChosenFile.file
    return configuration.find_file(ChosenFile.file)


def _file_option() -> list[str]:
    return ["--config", ChosenFile.file] if ChosenFile.file else []


def _absolute(file: str | None) -> str | None:
    return str(Path(file).absolute()) if file else None


def _become(module: str, *arguments: str) -> NoReturn:
    command = python(module, *arguments)
    os.execv(command[0], command)


def main() -> None:
    """Run what was typed."""
    run_to_exit(app)
