"""`python -m docs.tables`: write the generated pages of docs/ and packaging/ from the tables in the code.

Of docs/access.md it writes the table of the keys of a grant; packaging/incus-courier.8 is the manual page, and
packaging/completions/ has what shells complete by.

The fields of an event are read from the places in the code that log it.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from api.metrics.table import METRICS
from api.routes.openapi import document
from api.service import addresses
from client.completion import SCRIPTS
from daemon.errors import ERRORS, Action, ErrorKind
from daemon.log.events import EVENTS
from daemon.model.grant import MEANINGS, Grant
from daemon.recovery.findings import FINDINGS
from docs.api_page import api_page
from docs.command_pages import commands_page, manual_page
from docs.markdown import table as _table

HERE = Path(__file__).resolve().parent
MANUAL = HERE.parent / "packaging/incus-courier.8"
COMPLETIONS = HERE.parent / "packaging/completions"
ROOMS = ("api", "client", "daemon", "sender", "worker")

_ERRORS_HEAD = """# Errors

Made by `make docs` from `daemon/errors.py`. A code never changes its meaning.

| action | what happens |
| --- | --- |
| reject | the client is told, nothing is kept |
| retry | the same task is tried again later; the attempt counts |
| wait | the other side is away: the task waits for it, nothing counts and nothing ages |
| dead-letter | trying again cannot help: the bytes are kept for a person |
| stop | the process cannot go on; it tells the administrator and exits |
| leave | `incus-courier push` does not send the file; it goes on with the others |
"""

_METRICS_HEAD: Final = """# Metrics

Made by `make docs` from `api/metrics/table.py`.

`GET /metrics` answers in Prometheus's text format 0.0.4, and in OpenMetrics 1.0.0 for who asks for that. It needs the
right `metrics`. Make a token for it, in a file that Prometheus alone can read:

    incus-courier token new prometheus --may metrics |
        install -m 600 -o prometheus /dev/stdin /etc/prometheus/incus-courier.token

```yaml
# prometheus.yml
rule_files: [/usr/share/incus-courier/prometheus/alerts.yml]
scrape_configs:
  - job_name: incus-courier
    authorization: {credentials_file: /etc/prometheus/incus-courier.token}
    static_configs: [{targets: ["127.0.0.1:8420"]}]
```

The package has alert rules and a Grafana board in `/usr/share/incus-courier`; in the source they are in
`packaging/prometheus` and `packaging/grafana`.

No restart, cleared task or number of processes makes a counter go back. The first four below are kept by the API's
processes, each second, in `access/` of the state; all others by the queue's databases, after whose rebuild they begin
anew. Everything is found out once a second at most. Of a shard that cannot be read nothing is counted, its
`incus_courier_shard_readable` is 0, and the counters of the databases are not there: less than before would look like a
beginning. Where no shard can be read, or the disk hangs, the answer is `503` within five seconds, so `up` is 0.

"""

#: A section of the page: its title, a note, the rows that belong there, and the columns that only these have.
_SECTIONS: Final[tuple[tuple[str, str, Callable[[ErrorKind], bool], dict[str, Callable[[ErrorKind], object]]], ...]] = (
    ("A request that is refused", "Clients meet these, as `code` in the answer. Where the trouble passes by itself,"
     " `Retry-After` says in how many seconds to try again.", lambda kind: kind.status != 0,
     {"status": lambda kind: kind.status, "Retry-After": lambda kind: kind.retry_after_s or ""}),
    ("A delivery that did not work", "These are in a task's `error`, and in the log. What else would only meet the same"
     " error is left alone meanwhile: nothing, the instance's other tasks, or all of the remote's.",
     lambda kind: kind.status == 0 and kind.action not in {Action.STOP, Action.LEAVE},
     {"concerns": lambda kind: kind.scope.value}),
    ("A process that cannot go on", "These end a process, or keep it from starting. After 78 the service manager does"
     " not start it again.", lambda kind: kind.status == 0 and kind.action is Action.STOP,
     {"exit status": lambda kind: kind.exit_status}),
    ("A file that is not sent", "`incus-courier push` tells these of a file ([push.md](push.md)).",
     lambda kind: kind.action is Action.LEAVE, {}),
)

_EVENTS_HEAD = """# Events

Made by `make docs` from `daemon/log/events.py` and the places that log them. Each step of an upload is one event. As
JSON lines the fields have the names below; in the journal they are `INCUS_` and the name in capitals, beside `MESSAGE`,
`PRIORITY`, `SYSLOG_IDENTIFIER`, `MESSAGE_ID`, `CODE_FILE`, `CODE_LINE`, `CODE_FUNC` and `INCUS_EVENT`.

    journalctl INCUS_TASK_ID=01a203af-ced4-760f-ae26-10636e7e5bca    one upload, from its acceptance to its delivery
    journalctl INCUS_INSTANCE=web1 INCUS_EVENT=push.failed           an instance's dead letters
    journalctl -u 'incus-courier*' -p warning                        what needs a look
    journalctl -u 'incus-courier*' -o json --output-fields=INCUS_TASK_ID,INCUS_CODE

A value ends with `…` where it was too long for the journal (4 KiB with its name). What a client sends is always
a value, never a field or a line of its own. Not every event has all of its fields.

Of refusals (those with a `peer`) the first is logged at once, of each kind and from each peer, and then one a second,
the newest; `left_out` says how many came besides it.
"""

_RECOVERY_HEAD = """# Recovery

Made by `make docs` from `daemon/recovery/findings.py`. A name never changes its meaning.

The spool holds every upload that is not finished; the queue is the index to it. A worker compares the two at its start,
if the one before it died, and in the background after each start and every six hours. What it finds it puts right
without being asked, and tells:

    journalctl INCUS_EVENT=fsck.finding                 what was wrong, and whether it was put right
    journalctl -u 'incus-courier*' -p warning           with all that goes with it

To look at everything at once, while the service runs or not; it changes nothing, and fails when something is wrong:

    incus-courier fsck

To put right what workers leave. A shard that is being served is only looked at, so stop the service first:

    systemctl stop 'incus-courier*'
    incus-courier fsck --repair
    systemctl start incus-courier.target

## What is lost with a database

No upload. A queue that is rebuilt from the spool does not know how often a task was tried and when it was due, what
people had asked and the worker had not done, nor what is finished. Dead letters and held uploads stay what they are,
but it is not known why, nor what was delivered to their paths since: they have the code `order_unknown`, and are
retried or released with `--force` only. What was delivered in the last moments before is delivered once more: with
`on_newer = "deliver-all"` each of the uploads to a path again, in their order, so that the newest comes last.
The list of what people did is lost with it, and what is counted for good begins with nothing again.

A database without its log is as old as its last checkpoint: some uploads that were delivered since are dead letters
without bytes (`bytes_missing`) then, and can be deleted.

## The files of the spool

`spool/BUCKET/ID` is an upload: its bytes, its description as JSON, and 16 bytes. Small uploads (up to 16 KiB) that
were accepted together share a file, a pack: 16 of them at most, up to 64 KiB, one after the other, and at its end a
list. Each has a name of its own for it, a hard link. `ls -l` shows how many names are left, and beside each the size of
all; `du` counts the file once. Marking, removing and setting aside an upload is done to its name, and to no other.

The room is free when the last name is gone, and the bytes of the others are on the disk until then, though nobody finds
them any more: a dead letter, or an upload that is held, may keep up to 64 KiB of its neighbours' room.

Backups by `rsync -H`, `tar` and `cp -a` know of the names. Those that do not (`rsync -a`, `scp`) are as good, but have
the pack once for each name. Back up a state in which nothing runs, or a snapshot of its filesystem. Within the
filesystem make no copy by hard links (`cp -l`): a file with more names than it has uploads is refused (`invalid_row`).

## lost+found

Nothing doubtful is deleted. It is moved to `lost+found` in the state directory, with the time behind its name, and
stays there until a person removes it. A name of the spool begins with the ID of its upload:

    LC_ALL=C grep -aobP '\\{"task_id":"ID".*?"sha256":"\\w+"' FILE | cat -v   AT: its path, its SIZE, its sha256
    tail -c +$((AT - SIZE + 1)) FILE | head -c SIZE > COPY                           its bytes

## Findings
"""


#: Where the keys of a grant stand in docs/access.md.
_KEYS: Final = re.compile(r"(?<=from daemon/model/grant.py -->\n).*?(?=<!-- end of keys -->)", re.DOTALL)


def errors_page() -> str:
    """The text of docs/errors.md."""
    parts = [_ERRORS_HEAD]
    for title, note, belongs, special in _SECTIONS:
        rows = [(f"`{kind.code}`", *(show(kind) for show in special.values()), kind.action.value, kind.title, kind.hint)
                for kind in ERRORS.values() if belongs(kind)]
        columns = ("code", *special, "action", "what it means", "what to do")
        parts.append(f"## {title}\n\n{note}\n\n{_table(columns, rows)}")
    return "\n".join(parts)


def events_page() -> str:
    """The text of docs/events.md."""
    fields = logged_fields()
    rows = [(f"`{event.name}`", event.level, event.message, _names(fields.get(event.name, ())), f"`{event.message_id}`")
            for event in EVENTS.values()]
    return f"{_EVENTS_HEAD}\n{_table(('event', 'level', 'meaning', 'fields', 'MESSAGE_ID'), rows)}"


def recovery_page() -> str:
    """The text of docs/recovery.md."""
    rows = [(f"`{kind.name}`", kind.title, kind.repair, kind.advice) for kind in FINDINGS.values()]
    return f"{_RECOVERY_HEAD}\n{_table(('finding', 'what is wrong', 'what is done', 'what is left to do'), rows)}"


def access_page() -> str:
    """The text of docs/access.md: as it is, with the keys of a grant in it."""
    rows = [(f"`{key}`", meaning, _without(key)) for key, meaning in MEANINGS.items()]
    return _KEYS.sub(lambda _: _table(("key", "meaning", "without it"), rows), (HERE / "access.md").read_text())


def _without(key: str) -> str:
    """What holds for a grant without that key."""
    default = getattr(Grant(), key)
    match default:
        case None:
            return "no limit"
        case bool():
            return "true" if default else "false"
        case int():
            return f'`"{default:04o}"`'
        case tuple():
            return ", ".join(f'`["{low}-{high}"]`' for low, high in default)
    return "it has to be there"


def logged_fields() -> dict[str, set[str]]:
    """For each event that the code logs, the fields that come with it somewhere."""
    found: dict[str, set[str]] = defaultdict(set)
    for room in ROOMS:
        for file in sorted((HERE.parent / room).rglob("*.py")):
            for names, fields in _calls(ast.parse(file.read_text())):
                for name in names:
                    found[name] |= fields
    return found


def _calls(module: ast.Module) -> Iterator[tuple[set[str], set[str]]]:
    """The events and the fields of each call of `log` in a module."""
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call) and node.args and _is_log(node.func)]
    direct = {name for call in calls for name in _strings(call.args[0])}
    for call in calls:
        # An event that is chosen from a table: any that the module names elsewhere.
        names = _strings(call.args[0]) or _strings(module) - direct
        yield names, {word.arg or "…" for word in call.keywords}


def _is_log(function: ast.expr) -> bool:
    # log(...), logs.log(...), and what the log says of itself.
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in {"log", "_log_own"}


def _strings(node: ast.AST) -> set[str]:
    return {leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant) and leaf.value in EVENTS}


def _names(fields: Iterable[str]) -> str:
    return ", ".join(field if field == "…" else f"`{field}`" for field in sorted(fields))


def metrics_page() -> str:
    """The whole of metrics.md."""
    rows = ((f"`{metric.name}`", metric.type.value, _names(metric.labels), metric.help) for metric in METRICS)
    return _METRICS_HEAD + _table(("name", "type", "labels", "meaning"), rows)


def main() -> None:
    """Write the pages."""
    (HERE / "api.md").write_text(api_page(document(addresses())))
    (HERE / "errors.md").write_text(errors_page())
    (HERE / "events.md").write_text(events_page())
    (HERE / "metrics.md").write_text(metrics_page())
    (HERE / "recovery.md").write_text(recovery_page())
    (HERE / "access.md").write_text(access_page())
    (HERE / "commands.md").write_text(commands_page())
    MANUAL.write_text(manual_page())
    for shell, script in SCRIPTS.items():
        (COMPLETIONS / shell).write_text(script)


if __name__ == "__main__":
    main()
