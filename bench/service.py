"""The service as it runs in earnest: an API and workers as processes of their own, on a state made for the bench."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.machine import children, command_of, tree_cpu_s
from daemon.state.layout import Layout

ROOT: Final = Path(__file__).resolve().parent.parent
#: The default of the configuration, named because the bench divides its work by it.
SHARDS: Final = 2
_SERVE: Final = "from daemon.cli.main import main; main()"
_START_S: Final = 60.0
_STOP_S: Final = 40.0


class Child:
    """One process that is measured; its log goes into a file of the scratch directory."""

    def __init__(self, command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None,
                 pass_fds: tuple[int, ...] = ()) -> None:
        self._log = log
        self.started_at = time.perf_counter()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, pass_fds=pass_fds)
        self.pid = self._process.pid

    def wait_for(self, event: str) -> None:
        """Wait until the log has that event. Raises RuntimeError when the process ends first, or never says it."""
        self.wait_for_line(f'"event": "{event}"')

    def wait_for_line(self, words: str) -> str:
        """Wait for a line of the log that has these words, and return it. Raises as `wait_for` does."""
        wait_until(lambda: self._line(words) or self._ended(), _START_S, f"{words} in a log")
        line = self._line(words)
        if line is None or self._ended():
            raise RuntimeError(f"a process ended at its start: {self._log.read_text(errors='replace')[-2000:]}")
        return line

    def _line(self, words: str) -> str | None:
        # A last line without its end may not be all of it yet.
        lines = self._log.read_text(errors="replace").splitlines(keepends=True)
        return next((line for line in lines if words in line and line.endswith("\n")), None)

    def _ended(self) -> bool:
        return self._process.poll() is not None

    def freeze(self) -> None:
        """Stop the process where it is; it has stopped when this returns."""
        self._process.send_signal(signal.SIGSTOP)
        # Seen, not taken: it can be asked for again, and Popen still learns of the end.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it as a supervisor does, and kill it when it does not."""
        self.thaw()
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Service:
    """An API and workers on one state directory. `with Service(...)` stops what was started."""

    def __init__(self, state: Path, *, target: str, settings: Mapping[str, str] | None = None) -> None:
        """`target` is "incus" or "directory"; `settings` are further lines of the configuration by section."""
        self.state = state
        self.layout = Layout(state)
        state.mkdir(mode=0o700, exist_ok=True)
        self.layout.create()
        sections = {"state": f'directory = "{state}"', "target": f'kind = "{target}"',
                    "queue": f"shards = {SHARDS}", "log": 'format = "json"', **(settings or {})}
        #: Its configuration file, beside which the tokens are.
        self.config = state / "config.toml"
        self.config.write_text("".join(f"[{name}]\n{lines}\n" for name, lines in sections.items()))
        self._children: list[Child] = []
        self._serving = 0
        self.port = 0

    def serve(self) -> None:
        """Start the whole service as a user does, by `incus-courier serve`; `port` on loopback is where it listens."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        child = self._start(["-c", _SERVE, "--config", str(self.config), "serve"], "serve",
                            environment={"INCUS_COURIER__API__LISTEN": f'["127.0.0.1:{self.port}"]'})
        self._serving = child.pid
        child.wait_for("api.started")
        child.wait_for("worker.started")

    def cpu_s(self, part: str) -> float:
        """Seconds of CPU that the processes of one part of what `serve` started, "api" or "worker", have used."""
        return sum(tree_cpu_s(pid) for pid in children(self._serving)
                   if any(word == part or word.startswith(f"{part}.") for word in command_of(pid)))

    def start_api(self) -> Child:
        """Start the API alone, with the processes that it has by default; `port` on loopback is where it listens."""
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            self.port = listener.getsockname()[1]
            child = self._start(["-m", "api", "--config", str(self.config), "--listen", f"fd://{listener.fileno()}"],
                                "api", pass_fds=(listener.fileno(),))
        child.wait_for("api.started")
        return child

    def start_worker(self, shard: int, *, wait: bool = True) -> Child:
        """Start the worker of a shard."""
        child = self._start(["-m", "worker", "--config", str(self.config), "--shard", str(shard)], f"worker-{shard}")
        if wait:
            child.wait_for("worker.started")
        return child

    def start_workers(self) -> list[Child]:
        """Start the workers of all shards."""
        return [self.start_worker(shard) for shard in range(SHARDS)]

    def _start(self, arguments: list[str], name: str, *, environment: Mapping[str, str] | None = None,
               pass_fds: tuple[int, ...] = ()) -> Child:
        child = Child([sys.executable, "-P", *arguments], self.state / f"{name}.{len(self._children)}.log",
                      environment={"PYTHONPATH": str(ROOT), **(environment or {})}, pass_fds=pass_fds)
        self._children.append(child)
        return child

    def stop(self) -> None:
        """Stop every process."""
        while self._children:
            self._children.pop().stop()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def wait_until(true: Callable[[], object], timeout_s: float, what: str) -> None:
    """Wait until something is so. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.01)
