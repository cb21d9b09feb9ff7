"""Uploads per second, and how long one takes."""

from collections.abc import Callable, Sequence
from typing import Final

from bench import load
from bench.figures import Figure, Goal, Section, alternate, median, percentile
from bench.load import Load
from bench.machine import cpu_times, tree_cpu_s
from bench.plan import Plan
from bench.service import Service
from bench.storage import Storage, Stored, bare_files

TITLE: Final = "Accepting small uploads"
METHOD: Final = """\
`POST /upload` of 1 KiB to paths of their own in 8 instances, over 16 keep-alive connections, each sending its next
upload when the last one was answered; the API as it is by default, with one process for each core, and no workers.
Beside it, in alternating rounds, in 16 threads of one process: the same spool and queue with the same group commit but
without HTTP; the same with one commit for each upload; and bare files of the same bytes, each written and fsynced. Load
and server share the machine's cores.
"""
INSTANCES: Final = [f"accept-{number}" for number in range(8)]


def run(plan: Plan) -> Section:
    """Measure it."""
    grouped = Storage(plan.directory("grouped"), INSTANCES)
    single = Storage(plan.directory("single"), INSTANCES)
    files = plan.directory("files")
    with Service(plan.directory("accept"), target="directory") as service:
        api = service.start_api()
        load.run(service.port, seconds=1, instances=INSTANCES)
        before, cpu_before = tree_cpu_s(api.pid), cpu_times()
        alone = load.run(service.port, seconds=plan.load_s, instances=INSTANCES)
        api_share = (tree_cpu_s(api.pid) - before) / alone.seconds
        machine_share = cpu_times().share_since(cpu_before)
        sides: dict[str, Callable[[], Load | Stored]] = {
            "http": lambda: load.run(service.port, seconds=plan.load_s, instances=INSTANCES),
            "grouped": lambda: grouped.grouped(plan.load_s),
            "single": lambda: single.one_by_one(plan.load_s),
            "files": lambda: bare_files(files, plan.load_s),
        }
        found = alternate(plan.rounds, sides)
        service.start_workers()
        working = alternate(plan.rounds, {
            "http": lambda: load.run(service.port, seconds=plan.load_s, instances=INSTANCES)})["http"]
    rates = {name: median([one.rate for one in some]) for name, some in found.items()}
    return Section(
        title=TITLE, method=METHOD, figures=[
            Figure(what="accepted", value=rates["http"], unit="/s", peer="storage path without HTTP",
                   peer_value=rates["grouped"], goals=[Goal("value", ">=", 1200)]),
            Figure(what="accepted", value=rates["http"], unit="/s", peer="one commit per upload, without HTTP",
                   peer_value=rates["single"]),
            Figure(what="accepted", value=rates["http"], unit="/s", peer="bare write and fsync of the same bytes",
                   peer_value=rates["files"]),
            *(Figure(what=f"accept latency p{share:.0%}".rstrip("%"), value=_latency(found["http"], share), unit="ms",
                     peer="storage path without HTTP", peer_value=_latency(found["grouped"], share))
              for share in (0.5, 0.99)),
            Figure(what="accepted while two workers deliver into directories",
                   value=median([one.rate for one in working]), unit="/s", peer="without workers",
                   peer_value=rates["http"]),
        ],
        notes=[f"During one round the API used {api_share:.0%} of a core, the load {alone.cpu_s / alone.seconds:.0%};"
               f" the machine was {machine_share:.0%} busy."])


def _latency(some: Sequence[Load | Stored], share: float) -> float:
    return median([percentile(one.latencies_ms, share) for one in some])
