"""Uploads without a pause, and the account of what was promised for each."""

import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.live.host import Container
from tests.support.waiting import eventually
from tests.system.machine import PATIENCE_S, Machine, ask

#: In the instance: one folder for everything.
FOLDER = "srv"


class Load:
    """Uploads into one instance, each to a path of its own; `promised` are those that got their 202."""

    def __init__(self, machine: Machine, instance: Container) -> None:
        self._machine = machine
        self._instance = instance
        self._lock = threading.Lock()
        self._count = 0
        #: Nothing of another load in the same instance is taken for its own.
        self._prefix = uuid.uuid4().hex[:12]
        #: File name to task id.
        self.promised: dict[str, str] = {}
        #: Everything else that came instead of a 202.
        self.refused: Counter[str] = Counter()

    def upload(self, door: str | None = None, size: int = 0) -> None:
        """Send one file and note what was said about it."""
        with self._lock:
            self._count += 1
            name = f"{self._prefix}-{self._count}"
        try:
            status, answer = ask(door or self._machine.door, "PUT", f"/v1/instances/{self._instance.name}/files/{FOLDER}/{name}",
                                 _content(name, size))
        except (OSError, ValueError) as error:
            said = repr(error)
        else:
            said = f"{status} {answer.get('code', '')}"
        with self._lock:
            if said.startswith("202"):
                self.promised[name] = answer["id"]
            else:
                self.refused[said] += 1

    def many(self, number: int, threads: int = 4) -> None:
        """Send so many files."""
        door = self._machine.door
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda _: self.upload(door), range(number)))

    @contextmanager
    def running(self, threads: int = 4) -> Iterator[None]:
        """Send files all the time inside the block."""
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                self.upload()

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            stop.set()
            for worker in workers:
                worker.join()

    def wait_for(self, more: int) -> None:
        """Wait until so many more uploads are promised."""
        wanted = len(self.promised) + more
        eventually(lambda: len(self.promised) >= wanted, PATIENCE_S, f"{more} more uploads")

    def missing(self) -> list[str]:
        """The promised files that are not in the instance, or not whole."""
        folder = self._instance.rootfs / FOLDER
        return [name for name in list(self.promised) if not _is_whole(folder / name, name)]

    def wait_delivered(self) -> None:
        """Wait until every promised file is in the instance."""
        eventually(lambda: not self.missing(), 2 * PATIENCE_S, f"{len(self.promised)} promised files are delivered")


def _content(name: str, size: int) -> bytes:
    return f"this is {name}\n".encode().ljust(size, b".")


def _is_whole(file: Path, name: str) -> bool:
    try:
        found = file.read_bytes()
    except FileNotFoundError:
        return False
    return found == _content(name, len(found))
