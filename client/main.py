"""The command line `incus-courier` as it is installed: the commands of a service's own machine, and those by HTTP.

The latter are found first, and need none of the former's parts: they start fast, and on any machine. Some can do both:
where a service or a token is named they speak HTTP, else they read the state of this machine.
"""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

import typer
from typer.completion import get_completion_inspect_parameters

from daemon.errors import CourierError
from daemon.model.seat import Seat
from daemon.process.entry import run_to_exit
from daemon.process.exit_status import Misused, Unable
from daemon.process.output import say

if TYPE_CHECKING:
    from client.server import ServerOptions

app = typer.Typer(
    name="incus-courier", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ServerOption = Annotated[str | None, typer.Option(
    "--server", metavar="ADDRESS", show_default=False,
    help="The service: http(s)://HOST:PORT or unix:/PATH. Else $INCUS_COURIER_SERVER, else this machine's own.")]
TokenFileOption = Annotated[Path | None, typer.Option(
    "--token-file", metavar="FILE", show_default=False, help="A file with the token in it; else $INCUS_COURIER_TOKEN.")]
CaOption = Annotated[Path | None, typer.Option(
    "--ca", metavar="FILE", show_default=False,
    help="Certificates that vouch for the service; else $INCUS_COURIER_CA, else the system's.")]
CertificateOption = Annotated[Path | None, typer.Option(
    "--cert", metavar="FILE", show_default=False, help="A client certificate, maybe with its key.")]
KeyOption = Annotated[Path | None, typer.Option(
    "--key", metavar="FILE", show_default=False, help="The key of the client certificate.")]


@app.callback()
def together() -> None:
    """Have each command named, also while there is one alone."""


@app.command()
def push(
    words: Annotated[list[str], typer.Argument(
        metavar="FILE... [REMOTE:]INSTANCE/PATH", show_default=False,
        help="Files, or - for standard input; and where they go.")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Folders with all that is in them.")] = False,
    create_dirs: Annotated[bool, typer.Option("--create-dirs", "-p", help="Make missing directories.")] = False,
    uid: Annotated[int | None, typer.Option(
        metavar="UID", min=-1, show_default=False, help="The files' owner; else the service's default.")] = None,
    gid: Annotated[int | None, typer.Option(
        metavar="GID", min=-1, show_default=False, help="The files' group, likewise.")] = None,
    mode: Annotated[str | None, typer.Option(
        metavar="MODE", show_default=False, help="The files' permission bits, octal; else each one's own.")] = None,
    never: Annotated[bool, typer.Option("-P", help="Follow no symbolic link; so it is with -r.")] = False,
    named: Annotated[bool, typer.Option("-H", help="Follow links that are named; so it is without -r.")] = False,
    always: Annotated[bool, typer.Option("-L", help="Follow every link.")] = False,
    project: Annotated[str | None, typer.Option(
        metavar="NAME", show_default=False, help="The instance's project.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every file is in the instance.")] = False,
    timeout: Annotated[float | None, typer.Option(
        metavar="SECONDS", min=0, show_default=False, help="How long to wait at most, once all is sent.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=32, help="Files that are sent at once.")] = 4,
    retry_for: Annotated[float, typer.Option(
        metavar="SECONDS", min=0, help="How long trouble may last without anything getting on.")] = 300,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be sent, and send nothing.")] = False,
    json: Annotated[bool, typer.Option(
        "--json", help="Print JSON, a line for each file; so it is where no terminal is written to.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what goes wrong.")] = False,
    server: ServerOption = None, token_file: TokenFileOption = None, ca: CaOption = None,
    cert: CertificateOption = None, key: KeyOption = None,
) -> None:
    """Push files into an instance, as `incus file push` does, by a service that delivers them.

    A large file goes on where it was when the line is cut, or when the same command is given again.

    Ends with 0 when every file is accepted (with --wait: in place), 1 when none is, 3 when some are not. With 2 when
    the command makes no sense, 75 when it was not known in time what became of them, 130 when it was interrupted.
    """
    from client.push.command import PushSettings
    from client.push.command import push as run
    from client.push.plan import PushOptions, chosen_links, parse_mode
    from client.server import ServerOptions

    options = PushOptions(
        recursive=recursive, mkdirs=create_dirs, uid=_given(uid), gid=_given(gid), mode=parse_mode(mode),
        links=chosen_links(never=never, named=named, always=always))
    settings = PushSettings(project=project, wait=wait, timeout_s=timeout, jobs=jobs, retry_for_s=retry_for,
                            dry_run=dry_run, as_json=json, quiet=quiet)
    chosen = ServerOptions(server=server, token_file=token_file, ca=ca, certificate=cert, key=key)
    raise SystemExit(run(words, options, settings, chosen))


# --- by HTTP, or on a service's own machine ----------------------------------------------------------------


def _both_ways(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options that say where the service is; they come in its keyword arguments."""
    own = [parameter for parameter in inspect.signature(command).parameters.values()
           if parameter.kind is not parameter.VAR_KEYWORD]
    where = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
             for name, annotation in _WHERE.items()]
    command.__dict__["__signature__"] = inspect.Signature([*own, *where])
    return command


_WHERE: Final[dict[str, Any]] = {
    "server": Annotated[str | None, typer.Option(
        "--server", metavar="ADDRESS", show_default=False,
        help="The service: http(s)://HOST:PORT or unix:/PATH; else $INCUS_COURIER_SERVER. Without it or a token, the"
             " state of this machine is read.")],
    "token_file": TokenFileOption, "ca": CaOption, "cert": CertificateOption, "key": KeyOption,
    "config": Annotated[str | None, typer.Option(
        "--config", metavar="FILE", show_default=False,
        help="The configuration file of this machine; else $INCUS_COURIER_CONFIG.")],
}


@contextmanager
def _seat(*, config: str | None = None, **where: Any) -> Iterator[Seat]:
    """The service that is meant, in the way that it is reached."""
    from client.server import find_server

    if _speaks_http(where, config):
        from client.seat import HttpSeat

        server = find_server(_server(where), os.environ)
        server.warn_of_readers()
        with server.connect() as connection:
            yield HttpSeat(connection)
    else:
        from daemon.cli.local_seat import open_local
        from daemon.cli.main import load_for_state
        from daemon.process.privileges import invoking_user

        asked_by = invoking_user()
        with open_local(load_for_state(config), asked_by) as seat:
            yield seat


def _speaks_http(where: Mapping[str, Any], config: str | None) -> bool:
    """True when a service or a token is named; else the state of this machine is meant."""
    from client.server import is_named
    from daemon.cli.main import ChosenFile

    return is_named(_server(where), os.environ, config or ChosenFile.file)


def _server(where: Mapping[str, Any]) -> "ServerOptions":
    from client.server import ServerOptions

    return ServerOptions(server=where.get("server"), token_file=where.get("token_file"), ca=where.get("ca"),
                         certificate=where.get("cert"), key=where.get("key"))


def _instances(context: typer.Context, incomplete: str) -> list[str]:
    from daemon.cli.complete import instances

    with suppress(CourierError, Misused, Unable, OSError), _seat(**_typed(context)) as seat:
        return instances(seat, incomplete)
    return []


def _ids(context: typer.Context, incomplete: str) -> list[str]:
    from daemon.cli.complete import ids

    with suppress(CourierError, Misused, Unable, OSError), _seat(**_typed(context)) as seat:
        return ids(seat, incomplete)
    return []


def _ids_or_instances(context: typer.Context, incomplete: str) -> list[str]:
    return [*_instances(context, incomplete), *_ids(context, incomplete)]


def _states(incomplete: str) -> list[str]:
    from daemon.model.task import State

    return [state.label for state in State if state.label.startswith(incomplete)]


def _typed(context: typer.Context) -> dict[str, Any]:
    """What was typed so far about where the service is."""
    return {name: context.params.get(name) for name in _WHERE}


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one line each.")]
InstanceOption = Annotated[str | None, typer.Option(
    "--instance", metavar="[REMOTE:][PROJECT/]NAME", show_default=False, help="Tasks of this instance.",
    autocompletion=_instances)]
ClientOption = Annotated[str | None, typer.Option(
    "--client", metavar="NAME", show_default=False, help="Tasks that this client sent.")]
StateOption = Annotated[list[str] | None, typer.Option(
    "--state", metavar="STATE", show_default=False, help="Tasks in this state. Repeatable.", autocompletion=_states)]


@app.command()
@_both_ways
def explain(
    what: Annotated[str, typer.Argument(
        metavar="ID|INSTANCE", show_default=False, help="A task, or an instance: [REMOTE:][PROJECT/]NAME.",
        autocompletion=_ids_or_instances)],
    json: Annotated[bool, typer.Option("--json", help="Print JSON, in one line.")] = False, **where: Any,
) -> None:
    """Say why a task, or what waits for an instance, is not delivered yet. Fails when it is stuck."""
    from daemon.cli.explain import explain as run

    with _seat(**where) as seat:
        raise SystemExit(run(seat, what, as_json=json))


@app.command()
@_both_ways
def tail(
    ids: Annotated[list[str] | None, typer.Argument(
        metavar="[ID]...", show_default=False, help="What happens to these tasks.", autocompletion=_ids)] = None,
    instance: InstanceOption = None, client: ClientOption = None, state: StateOption = None,
    json: JsonOption = False, **where: Any,
) -> None:
    """Show what happens to tasks, as it happens, until Ctrl-C."""
    from daemon.cli.tail import tail as run
    from daemon.cli.typed import read_filter

    wanted = read_filter(ids=ids or (), instance=instance, client=client, states=state or ())
    with _seat(**where) as seat:
        run(seat, wanted, as_json=json)


@app.command()
@_both_ways
def wait(
    ids: Annotated[list[str] | None, typer.Argument(
        metavar="[ID]...", show_default=False, help="Wait for what becomes of these tasks.",
        autocompletion=_ids)] = None,
    instance: Annotated[str | None, typer.Option(
        "--instance", metavar="[REMOTE:][PROJECT/]NAME", show_default=False, autocompletion=_instances,
        help="Wait until nothing waits for this instance.")] = None,
    timeout: Annotated[float | None, typer.Option(
        metavar="SECONDS", min=0, show_default=False, help="How long to wait at most.")] = None,
    json: JsonOption = False, **where: Any,
) -> None:
    """Wait until tasks are delivered, or nothing waits for an instance.

    Ends with 0 when all is delivered, 1 when something is not, 75 when that was not known in time.
    """
    from daemon.cli.typed import read_filter
    from daemon.cli.wait import wait_for_instance, wait_for_tasks

    wanted = read_filter(ids=ids or (), instance=instance)
    if bool(wanted.task_ids) == bool(wanted.instance):
        raise Misused("Name tasks by their ids, or an instance by --instance; one or the other.")
    with _seat(**where) as seat:
        if wanted.instance:
            raise SystemExit(wait_for_instance(seat, wanted.instance, timeout_s=timeout, as_json=json))
        raise SystemExit(wait_for_tasks(seat, wanted.task_ids, timeout_s=timeout, as_json=json))


@app.command()
@_both_ways
def top(
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.2, help="Between two looks.")] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, in one line, and end.")] = False, **where: Any,
) -> None:
    """Show how the whole stands: on a terminal live, until Ctrl-C; else once."""
    from daemon.cli.top import top as run

    with _seat(**where) as seat:
        raise SystemExit(run(seat, every_s=interval, as_json=json))


@app.command()
@_both_ways
def status(
    limit: Annotated[int, typer.Option(
        min=1, max=10_000, help="How many instances at most: those with most tasks that are not finished.")] = 20,
    every: Annotated[bool, typer.Option("--all", help="Every instance, in the order of their names.")] = False,
    json: Annotated[bool, typer.Option(
        "--json", help="Print JSON, in one line; with --all, a line for each instance before it.")] = False,
    **where: Any,
) -> None:
    """Show what waits, per shard and instance. Fails when there are dead letters or a shard has no worker.

    By HTTP it shows what `top` does, and fails when anything needs a person.
    """
    if _speaks_http(where, where.get("config")):
        from daemon.cli.top import status as run

        if every:
            raise Misused("--all is for the state of this machine; by HTTP --limit says how many instances.")
        with _seat(**where) as seat:
            raise SystemExit(run(seat, most=limit, as_json=json))
    from daemon.cli.main import load_for_state
    from daemon.cli.status import status as run_here

    raise SystemExit(run_here(load_for_state(where["config"]), limit=limit, every=every, as_json=json))


tasks = typer.Typer(no_args_is_help=True, help="Look at tasks, and decide about them. The workers carry it out.")
app.add_typer(tasks, name="tasks")
IdsArgument = Annotated[list[str] | None, typer.Argument(
    metavar="[ID]...", show_default=False, help="Task ids; - reads them from stdin.", autocompletion=_ids)]
OlderOption = Annotated[str | None, typer.Option(
    "--older-than", metavar="AGE", show_default=False, help="Tasks accepted so long ago: 90s, 15m, 2h, 3d.")]
NoWaitOption = Annotated[bool, typer.Option(
    "--no-wait", help="Do not wait for the worker's answer. By HTTP the service waits a little.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Also where a newer upload to the same path exists.")]


@tasks.command("list")
@_both_ways
def list_tasks(
    instance: InstanceOption = None, client: ClientOption = None, state: StateOption = None,
    path: Annotated[str | None, typer.Option(
        metavar="TEXT", show_default=False,
        help="Tasks with this in their path; or a glob, where it begins with / and ends with *.")] = None,
    error: Annotated[str | None, typer.Option(
        metavar="CODE", show_default=False, help="Tasks with this code of their error.")] = None,
    since: Annotated[str | None, typer.Option(
        metavar="WHEN", show_default=False,
        help="Tasks accepted from then on: 2030-01-31, 2030-01-31T12:00Z, or 2h for two hours ago.")] = None,
    until: Annotated[str | None, typer.Option(
        metavar="WHEN", show_default=False, help="Tasks accepted before then, likewise.")] = None,
    older_than: OlderOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    after: Annotated[str | None, typer.Option(
        metavar="ID", show_default=False, help="Go on after this task.")] = None,
    json: JsonOption = False, **where: Any,
) -> None:
    """List tasks, newest first."""
    from daemon.cli.task_list import list_tasks as run
    from daemon.cli.typed import check_id, read_filter
    from daemon.model.names import printable

    wanted = read_filter(instance=instance, client=client, states=state or (), path=path, error=error, since=since,
                         until=until, older_than=older_than)
    if after is not None and check_id(after):
        raise Misused(f"--after {printable(after)}: {check_id(after)}")
    with _seat(**where) as seat:
        raise SystemExit(run(seat, wanted, limit=limit, after=after, as_json=json))


@tasks.command()
@_both_ways
def show(
    ids: Annotated[list[str], typer.Argument(
        metavar="ID...", show_default=False, help="Task ids; - reads them from stdin.", autocompletion=_ids)],
    json: JsonOption = False, **where: Any,
) -> None:
    """Show all that is known of tasks."""
    from daemon.cli.tasks import show as run
    from daemon.cli.typed import read_ids

    with _seat(**where) as seat:
        raise SystemExit(run(seat, list(dict.fromkeys(read_ids(ids))), as_json=json))


@tasks.command()
@_both_ways
def retry(
    ids: IdsArgument = None, instance: InstanceOption = None, client: ClientOption = None, state: StateOption = None,
    older_than: OlderOption = None, force: ForceOption = False, no_wait: NoWaitOption = False, json: JsonOption = False,
    **where: Any,
) -> None:
    """Try dead letters and deferred tasks again, now."""
    _change("retry", where, ids, instance, client, state, older_than, force=force, wait=not no_wait, as_json=json)


@tasks.command()
@_both_ways
def cancel(
    ids: IdsArgument = None, instance: InstanceOption = None, client: ClientOption = None, state: StateOption = None,
    older_than: OlderOption = None, no_wait: NoWaitOption = False, json: JsonOption = False,
    **where: Any,
) -> None:
    """Do not deliver tasks, and remove their bytes."""
    _change("cancel", where, ids, instance, client, state, older_than, wait=not no_wait, as_json=json)


@tasks.command()
@_both_ways
def hold(
    ids: IdsArgument = None, instance: InstanceOption = None, client: ClientOption = None, state: StateOption = None,
    older_than: OlderOption = None, no_wait: NoWaitOption = False, json: JsonOption = False,
    **where: Any,
) -> None:
    """Do not deliver tasks until they are released."""
    _change("hold", where, ids, instance, client, state, older_than, wait=not no_wait, as_json=json)


@tasks.command()
@_both_ways
def release(
    ids: IdsArgument = None, instance: InstanceOption = None, client: ClientOption = None, state: StateOption = None,
    older_than: OlderOption = None, force: ForceOption = False, no_wait: NoWaitOption = False, json: JsonOption = False,
    **where: Any,
) -> None:
    """Deliver tasks that were held."""
    _change("release", where, ids, instance, client, state, older_than, force=force, wait=not no_wait, as_json=json)


@tasks.command()
@_both_ways
def delete(
    ids: IdsArgument = None, instance: InstanceOption = None, client: ClientOption = None, state: StateOption = None,
    older_than: OlderOption = None, no_wait: NoWaitOption = False, json: JsonOption = False,
    **where: Any,
) -> None:
    """Give up dead letters and remove their bytes; take finished tasks off the lists."""
    _change("delete", where, ids, instance, client, state, older_than, wait=not no_wait, as_json=json)


@tasks.command()
@_both_ways
def flush(
    instance: Annotated[str, typer.Option(
        metavar="[REMOTE:][PROJECT/]NAME", show_default=False, help="The instance.", autocompletion=_instances)],
    no_wait: NoWaitOption = False, json: JsonOption = False, **where: Any,
) -> None:
    """Try all deferred tasks of an instance now."""
    _change("flush", where, None, instance, None, ["deferred"], None, wait=not no_wait, as_json=json)


@tasks.command()
@_both_ways
def save(
    task_id: Annotated[str, typer.Argument(metavar="ID", show_default=False, autocompletion=_ids)], **where: Any,
) -> None:
    """Write a task's bytes to standard output: tasks save ID >FILE."""
    from daemon.cli.tasks import save as run

    with _seat(**where) as seat:
        raise SystemExit(run(seat, task_id, sys.stdout.fileno()))


def _change(
    verb: str, where: dict[str, Any], ids: list[str] | None, instance: str | None, client: str | None,
    states: list[str] | None, older_than: str | None, *, wait: bool, as_json: bool, force: bool = False,
) -> NoReturn:
    from daemon.cli.tasks import change
    from daemon.cli.typed import read_chosen

    wanted = read_chosen(ids=ids or (), instance=instance, client=client, states=states or (), older_than=older_than)
    with _seat(**where) as seat:
        raise SystemExit(change(seat, verb, wanted, force=force, wait=wait, as_json=as_json))


@app.command()
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="bash|zsh|fish", show_default=False)],
) -> None:
    """Write what has a shell complete commands, options, ids and instances: source <(incus-courier completion bash)."""
    from client.completion import SCRIPTS

    for line in SCRIPTS[shell].splitlines():
        say(line)


PROGRAM: Final = "incus-courier"
#: What the shell asks by.
COMPLETE: Final = "_INCUS_COURIER_COMPLETE"
#: The commands that are found first; they may need nothing of a service's own machine.
REMOTE_COMMANDS: Final = frozenset({"push", "explain", "tail", "wait", "top", "status", "tasks"})


def whole() -> typer.Typer:
    """All commands."""
    from daemon.cli.main import app as local

    commands, groups = local.registered_commands, local.registered_groups
    commands += [command for command in app.registered_commands if command not in commands]
    groups += [group for group in app.registered_groups if group not in groups]
    return local


def main() -> None:
    """The entry point of the installed command."""
    if COMPLETE in os.environ:
        get_completion_inspect_parameters()
    found = REMOTE_COMMANDS.intersection(sys.argv[1:2]) and COMPLETE not in os.environ
    run_to_exit(partial(app if found else whole(), prog_name=PROGRAM, complete_var=COMPLETE))


def _given(number: int | None) -> int | None:
    """A number that was meant: -1 stands for none, as with `incus file push`."""
    return None if number == -1 else number
