"""The pages of the command line: the manual page, and docs/commands.md, both from the texts of `--help`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import typer

from client.main import whole
from daemon.process.exit_status import EXIT_STATUSES
from docs.markdown import table

#: The order of the commands: what people use daily first, what systemd starts last.
_ORDER: Final = ("push", "status", "top", "explain", "tail", "wait", "tasks", "webhooks", "token", "cell", "check",
                 "fsck", "completion", "serve", "api", "worker", "sender")

_MAN_HEAD: Final = r""".\" Made by `make docs` from the texts of --help.
.Dd November 30, 2026
.Dt INCUS-COURIER 8
.Os
.Sh NAME
.Nm incus-courier
.Nd durable upload gateway for Incus instances
.Sh SYNOPSIS
.Nm
.Op Fl -config Ar FILE
.Ar command
.Op Ar argument ...
.Sh DESCRIPTION
.Nm
takes file uploads over HTTP and puts each file into an Incus instance.
It answers an upload only once that is safe on the disk, and then delivers it,
however often a process, the machine or Incus itself goes down in between.
.Pp
On an installed machine
.Xr systemd 1
runs the service as
.Li incus-courier.target ;
the command looks after it, and sends files to it from any machine.
"""

_MAN_FOOT: Final = r""".Sh ENVIRONMENT
.Bl -tag -width Ds
.It Ev INCUS_COURIER_SERVER , INCUS_COURIER_TOKEN , INCUS_COURIER_CA
The service, the token, and who vouches for the service's certificate, for the commands that have
.Fl -server .
.It Ev INCUS_COURIER_CONFIG
The configuration file.
.El
.Sh FILES
.Bl -tag -width Ds
.It Pa /etc/incus-courier/config.toml
The configuration: every key with its meaning.
.It Pa /etc/incus-courier/host
The name of this host, written once.
.It Pa /etc/incus-courier/tokens.json
The digests of the tokens, and what each allows.
.It Pa /run/incus-courier/api.sock
Where uploads come in, for members of the group
.Li incus-courier .
.It Pa /var/lib/incus-courier
Accepted uploads, until they are delivered.
.El
"""

_MAN_END: Final = r""".Sh EXAMPLES
Push a file, and wait until it is in the instance:
.Bd -literal -offset indent
incus-courier push --wait report.pdf web1/srv/report.pdf
.Ed
.Pp
See what is wrong, and why:
.Bd -literal -offset indent
incus-courier top
incus-courier explain web1
.Ed
.Pp
Follow an upload:
.Bd -literal -offset indent
journalctl INCUS_TASK_ID=01a203af-ced4-760f-ae26-10636e7e5bca
.Ed
.Sh SEE ALSO
.Xr journalctl 1 ,
.Xr systemctl 1
.Pp
.Pa /usr/share/doc/incus-courier
"""

_COMMANDS_HEAD: Final = """# Commands

Made by `make docs` from the texts of `--help`; the manual page `incus-courier(8)` has the same.

`push` speaks HTTP. `status`, `top`, `explain`, `tail`, `wait` and `tasks` do so where a service or a token is named
(`--server`, `--token-file`, `$INCUS_COURIER_SERVER`, `$INCUS_COURIER_TOKEN`); else they read the state of this machine,
as the service's user or root, and so do all others. Both ways show and do the same; only `status` shows by HTTP what
`top` does. By HTTP looking needs the right `read`, `top` and `status` need it without bounds, and acting on tasks needs
the right of each action ([acting.md](acting.md)). Many tasks are acted on by HTTP as one preview shows them, the newest
100,000 at most: where there are more the command says so.

    incus-courier tail --instance web1 --json        what happens, a line of JSON each
    incus-courier wait --instance web1 --timeout 60  until nothing waits for it
    incus-courier tasks list --since 2h --path '/srv/**' --error parent_not_found
    source <(incus-courier completion bash)          also zsh and fish

`tail` goes on by itself after the service was away, and says where it may have missed something. `wait --instance`
fails when something became a dead letter meanwhile. With `--json` each line of standard output is one JSON value, as
[api.md](api.md) has it. Names come from anyone: what could colour, move or forge what a terminal shows is escaped.
`top` shows the last hour as bars of two minutes; `q` ends it, a service that is away does not. Where it is not on a
terminal it prints once. `$NO_COLOR` keeps it without colours.

A service that cannot be reached, that refuses (`401`, `403`, `429`), whose certificate is not trusted, or that is none,
is told in one line on standard error, and the command ends with 1.

"""


@dataclass(frozen=True)
class _Command:
    """One command, as its help tells it."""

    name: str
    #: Its arguments, as they are typed.
    arguments: tuple[str, ...]
    #: What it does, in paragraphs.
    text: tuple[str, ...]
    #: Each option as it is typed, and what it means.
    options: tuple[tuple[str, str], ...]


def commands_page() -> str:
    """The text of docs/commands.md."""
    parts = [_COMMANDS_HEAD + _exit_table()]
    for command in _commands():
        usage = " ".join(["incus-courier", command.name, *command.arguments])
        rows = [(f"`{typed}`", meaning) for typed, meaning in command.options]
        parts.append("\n".join([f"## {command.name}\n", f"    {usage}\n", "\n\n".join(command.text) + "\n",
                                *([table(("option", "meaning"), rows)] if rows else [])]))
    return "\n".join(parts)


def manual_page() -> str:
    """The text of packaging/incus-courier.8."""
    lines = [_MAN_HEAD.rstrip("\n"), ".Sh COMMANDS"]
    for command in _commands():
        lines += [f".Ss {_plain(' '.join([command.name, *command.arguments]))}"]
        for number, paragraph in enumerate(command.text):
            lines += [*([".Pp"] if number else []), _plain(paragraph)]
        options = [line for option in command.options for line in (f".It {_plain(option[0])}", _plain(option[1]))]
        lines += [".Bl -tag -width Ds", *options, ".El"] if options else []
    lines += [_MAN_FOOT.rstrip("\n"), ".Sh EXIT STATUS", ".Bl -tag -width Ds"]
    lines += [line for code, meaning in EXIT_STATUSES.items() for line in (f".It {code}", _plain(meaning))]
    return "\n".join([*lines, ".El", _MAN_END])


def _exit_table() -> str:
    return "## Exit codes\n\n" + table(("code", "meaning"), list(EXIT_STATUSES.items()))


def _commands() -> list[_Command]:
    found = list(_below(typer.main.get_command(whole()), ""))
    return sorted(found, key=lambda command: _ORDER.index(command.name.split()[0]))


def _below(command: Any, name: str) -> Iterator[_Command]:
    if hasattr(command, "commands"):
        for word, inner in command.commands.items():
            yield from _below(inner, f"{name} {word}".strip())
        return
    arguments = tuple(_word(parameter) for parameter in command.params if parameter.param_type_name == "argument")
    options = tuple((_typed(parameter), _meaning(parameter)) for parameter in command.params
                    if parameter.param_type_name == "option")
    text = tuple(" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n"))
    yield _Command(name, arguments, text, options)


def _typed(option: Any) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {_word(option)}"


def _meaning(option: Any) -> str:
    default = option.default
    shown = option.show_default is not False and not option.is_flag and default is not None and not callable(default)
    return f"{option.help or ''}{f' Without it: {default}.' if shown else ''}"


def _word(parameter: Any) -> str:
    # What has no name of its own is a number.
    return str(parameter.metavar or "NUMBER")


def _plain(text: str) -> str:
    """Text as mdoc has it: nothing in it is a request."""
    escaped = text.replace("\\", "\\e").replace("…", "...")
    return re.sub(r"^(?=[.'])", r"\\&", escaped)
