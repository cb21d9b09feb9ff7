"""What the machine is, and what it and single processes are busy with."""

import os
import platform
import sqlite3
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

TICKS_S: Final = os.sysconf("SC_CLK_TCK")


def describe() -> list[tuple[str, str]]:
    """The facts that a figure depends on. No paths, no names of hosts."""
    return [
        ("date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("cores", f"{os.cpu_count()}, {_processor()}"),
        ("memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"),
        ("kernel", platform.release()),
        ("Python", platform.python_version()),
        ("SQLite", sqlite3.sqlite_version),
        ("Incus", incus_version() or "none"),
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def incus_version() -> str | None:
    """The version of this machine's Incus; None when there is none that answers."""
    try:
        answer = subprocess.run(["incus", "query", "/1.0"], capture_output=True, text=True, timeout=20, check=True,
                                stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    found = [line for line in answer.stdout.splitlines() if '"server_version"' in line]
    return found[0].partition(":")[2].strip(' ",') if found else "unknown"


@dataclass(frozen=True)
class CpuTimes:
    """Seconds of all cores: in use, and in all."""

    busy_s: float
    total_s: float

    def share_since(self, earlier: "CpuTimes") -> float:
        """The share of the machine that was in use since `earlier`, 0 to 1."""
        total = self.total_s - earlier.total_s
        return (self.busy_s - earlier.busy_s) / total if total else 0.0


def cpu_times() -> CpuTimes:
    """The machine's CPU times since its start."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return CpuTimes((sum(fields) - idle) / TICKS_S, sum(fields) / TICKS_S)


def process_cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def tree_cpu_s(pid: int) -> float:
    """Seconds of CPU that a process and all that it started have used, also those of which it saw the end."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_S + sum(map(tree_cpu_s, children(pid)))


def children(pid: int) -> list[int]:
    """The processes that a process has started, and that are there."""
    return [int(word) for tasks in Path(f"/proc/{pid}/task").glob("*/children") for word in tasks.read_text().split()]


def command_of(pid: int) -> list[str]:
    """The words of the command that a process runs."""
    return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")


def peak_rss_bytes(pid: int) -> int:
    """The most memory that a process has had resident so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} says nothing of its memory")


def load_average() -> float:
    """How many processes wanted to run during the last minute, on average."""
    return os.getloadavg()[0]
