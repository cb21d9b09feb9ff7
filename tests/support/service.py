"""A whole service for a test: its configuration, its processes, its log, and what is left in its state."""

import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from daemon import failpoints
from daemon.model.task import PENDING, State, Task
from daemon.model.upload import BUCKETS
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support.client import Client
from tests.support.processes import Forked, Launcher, Process, end
from tests.support.tokens import without_tokens
from tests.support.waiting import PATIENCE_S, eventually

Settings = Mapping[str, Mapping[str, object]]

#: What every service of a test starts from: into a directory, quick to try again, at home on a small disk.
DEFAULTS: Settings = {
    "queue": {"shards": 1},
    "target": {"kind": "directory"},
    "limits": {"min_free_bytes": 2**20, "reserve_bytes": 2**20},
    "delivery": {"mkdirs": True, "drain_s": 5},
    "api": {"drain_s": 5, "processes": 1},
    "retry": {"first_delay_s": 0.05, "max_delay_s": 0.2},
    "log": {"format": "json", "level": "debug"},
}
#: What a process that cannot start says on its way out; further lines of that are set in.
_COMPLAINT = "incus-courier "
_FURTHER = "  "
#: How an event begins. Quotes within one are escaped.
_BEGIN = '{"'


class Service:
    """One API process and a worker for each shard on one state directory."""

    def __init__(self, directory: Path, settings: Settings | None = None, launch: Launcher = Forked) -> None:
        """Everything is below `directory`; nothing is started yet."""
        self.directory = directory
        self.settings = _merged(DEFAULTS, settings or {})
        #: What stands in the configuration file besides.
        self.further = ""
        self.layout = Layout(directory / "state")
        # A socket's name must be short.
        self._short = Path(tempfile.mkdtemp(prefix="courier-"))
        self.address = f"unix:{self._short / 'api.sock'}"
        self.shards = int(str(self.settings["queue"]["shards"]))
        self._launch = launch
        self.log = directory / "log"
        #: What was read of it, and how much that was.
        self._events: list[dict[str, Any]] = []
        self._log_bytes = 0
        self.processes: dict[str, Process] = {}
        self.client = Client(self.address)
        self.write_config()

    def write_config(self) -> None:
        """Write the configuration file from `settings`."""
        own: Settings = {"api": {"listen": [self.address]}, "state": {"directory": str(self.layout.directory)}}
        sections = _merged(own, self.settings)
        lines = [line for section, keys in sections.items()
                 for line in (f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()))]
        self.config.write_text("\n".join(lines) + f"\n{self.further}")

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / "config.toml"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self.log.exists():
            without_tokens(self.log.read_text(errors="replace"))
        shutil.rmtree(self._short)

    # --- processes ---------------------------------------------------------------------------------------

    def start(self, faults: str = "") -> Self:
        """Start what does not run, each process with the plan of faults, and wait until it is ready."""
        names = ["api", *(f"worker-{shard}" for shard in range(self.shards))]
        for name in names:
            if name not in self.processes:
                self.begin(name, faults)
        self.wait_ready()
        return self

    def begin(self, name: str, faults: str = "", *options: str) -> Process:
        """Start `api`, `worker-N` or `sender` with these options, and wait for nothing."""
        module, _, shard = name.partition("-")
        arguments = [module, "--config", str(self.config), *(["--shard", shard] if shard else []), *options]
        self.processes[name] = self._launch(arguments, {failpoints.VARIABLE: faults}, self.log)
        return self.processes[name]

    def wait_ready(self) -> None:
        """Wait until the service says that it can take uploads and deliver them."""
        eventually(self._ready, what=f"readiness ({self.log})")

    def _ready(self) -> bool:
        dead = {name: status for name, process in self.processes.items() if (status := process.status()) is not None}
        assert not dead, f"processes ended with {dead}:\n{self.log_end()}"
        answer = self.client.get("/readyz")
        return answer is not None and answer.status == 200 and self._workers_serve()

    def _workers_serve(self) -> bool:
        """True when each worker has said that it began: it holds its shard's lock before that."""
        begun = {event["pid"] for event in self.events("worker.started")}
        return all(process.pid in begun for name, process in self.processes.items() if name.startswith("worker"))

    def kill(self, *names: str) -> None:
        """End processes (all, if none is named) with SIGKILL."""
        self._end(names, signal.SIGKILL)

    def stop(self, *names: str) -> None:
        """End processes (all, if none is named) with SIGTERM, and see that each ends by it."""
        ends = self._end(names, signal.SIGTERM)
        # A process that has only begun to start dies of the signal, and that is well.
        assert set(ends.values()) <= {0, -signal.SIGTERM}, f"processes ended with {ends}:\n{self.log_end()}"

    def _end(self, names: tuple[str, ...], number: int) -> dict[str, int]:
        ending = {name: self.processes.pop(name) for name in names or tuple(self.processes)}
        for process in ending.values():
            process.send(number)
        return {name: end(process, number=0) for name, process in ending.items()}

    # --- what can be seen of it --------------------------------------------------------------------------

    def delivered(self, instance: str, path: str) -> bytes | None:
        """What the directory target has at `path` in `instance`, or None."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return (self.layout.instances / instance / path.lstrip("/")).read_bytes()
        return None

    def part_files(self) -> list[str]:
        """Part files that are in the directory target."""
        return [str(path) for path in self.layout.instances.rglob(".courier-*")]

    def spooled(self) -> list[str]:
        """The names of all files in the spool."""
        return [name for bucket in range(BUCKETS) for name in os.listdir(self.layout.bucket(bucket))]

    def tasks(self) -> list[Task]:
        """All tasks that have a row."""
        found: list[Task] = []
        for shard in range(self.shards):
            with SqliteQueue(self.layout, shard) as queue:
                found += queue.page(limit=1_000_000)
        return found

    def quiet(self) -> bool:
        """True when no task is pending and the spool holds dead letters only."""
        # Rows first, as a look at them is cheap; then bytes; then rows again, for what moved on between the two.
        return (self._rows_are_quiet() and all(name.endswith(".failed") for name in self.spooled())
                and self._rows_are_quiet())

    def _rows_are_quiet(self) -> bool:
        return not any(task.state in PENDING or (task.spooled and task.state is not State.FAILED)
                       for task in self.tasks())

    def idle(self) -> bool:
        """True when no task is pending."""
        return not any(task.state in PENDING for task in self.tasks())

    def wait_quiet(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until all that was accepted is delivered or a dead letter, and no other bytes are left."""
        try:
            eventually(self.quiet, timeout_s)
        except AssertionError as error:
            pending = [(task.task_id, task.state.label) for task in self.tasks() if task.state in PENDING]
            raise AssertionError(f"{self.directory}: spooled {self.spooled()}, pending {pending}") from error

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log's events, or those of one name. Anything else in the log, but a process's complaint, is an error."""
        if self.log.exists():
            with self.log.open("rb") as log:
                log.seek(self._log_bytes)
                new = log.read()
            # The last line may be on its way.
            whole = new[:new.rfind(b"\n") + 1]
            self._log_bytes += len(whole)
            self._events += [fields for line in without_tokens(whole.decode()).splitlines() if (fields := self._event(line))]
        return [fields for fields in self._events if event in {None, fields["event"]}]

    def _event(self, line: str) -> dict[str, Any] | None:
        """The event at the end of a line, or None when that is a complaint."""
        # A process that is killed may leave half of its last line: what another one says then stands right behind it.
        for begin in (0, max(line.rfind(_BEGIN), 0)):
            with contextlib.suppress(ValueError):
                fields: dict[str, Any] = json.loads(line[begin:])
                return fields
        assert _COMPLAINT in line or line.startswith(_FURTHER), f"not an event in the log: {line}\n{self.log_end()}"
        return None

    def log_end(self) -> str:
        """What the processes said last."""
        return self.log.read_text()[-4000:] if self.log.exists() else "(no log)"

    def mistakes(self) -> list[dict[str, Any]]:
        """The events that say that the service made a mistake, or that hold a traceback."""
        return [fields for fields in self.events()
                if fields["event"] in {"api.error", "worker.error"} or "Traceback" in json.dumps(fields)]


def _merged(first: Settings, second: Settings) -> dict[str, dict[str, object]]:
    return {section: {**first.get(section, {}), **second.get(section, {})} for section in {**first, **second}}
