"""The command line `incus-courier` as it is installed: the commands of a service's own machine, and those by HTTP.

The latter are found first, and need none of the former's parts: they start fast, and on any machine.
"""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from daemon.process.entry import run_to_exit

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


#: The commands that need nothing of a service's own machine.
REMOTE_COMMANDS: Final = frozenset({"push"})


def main() -> None:
    """The entry point of the installed command."""
    if REMOTE_COMMANDS.intersection(sys.argv[1:2]):
        run_to_exit(app)
        return
    from daemon.cli import main as local

    local.app.registered_commands.extend(app.registered_commands)
    local.main()


def _given(number: int | None) -> int | None:
    """A number that was meant: -1 stands for none, as with `incus file push`."""
    return None if number == -1 else number
