"""`python -m bench [--only NAME] [--quick | --full]`: measure, print the tables, write them to bench/RESULTS.md."""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from bench import accept, access, backlog, dashboard, delivered, delivery, durable, hung, large, machine, seat, through
from bench.figures import Section
from bench.plan import PLANS, SCRATCH, Plan
from bench.service import ROOT

SECTIONS: Final[dict[str, Callable[[Plan], Section]]] = {
    "accept": accept.run, "durable": durable.run, "through": through.run, "large": large.run, "access": access.run,
    "delivered": delivered.run, "delivery": delivery.run, "backlog": backlog.run, "hung": hung.run, "seat": seat.run,
    "dashboard": dashboard.run,
}
EXIT_TERMINATED: Final = 128 + signal.SIGTERM
RESULTS: Final = ROOT / "bench" / "RESULTS.md"


def main() -> int:
    """Run what was asked for; a run of everything becomes the results."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="one section; may be repeated")
    parser.add_argument("--quick", action="store_const", dest="plan", const="quick", default="normal",
                        help="a small backlog and few rounds")
    parser.add_argument("--full", action="store_const", dest="plan", const="full", help="more rounds, longer ones")
    options = parser.parse_args()
    plan = PLANS[options.plan]
    # Whoever ends it has what was made removed as well.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(EXIT_TERMINATED))
    began = time.monotonic()
    sections = []
    try:
        for name in options.only or SECTIONS:
            sections.append(SECTIONS[name](plan))
            sys.stdout.write(f"{sections[-1].markdown()}\n")
            sys.stdout.flush()
    finally:
        shutil.rmtree(SCRATCH, ignore_errors=True)
    if not options.only:
        RESULTS.write_text(_document(plan, sections, time.monotonic() - began))
    return 0


def _document(plan: Plan, sections: list[Section], seconds: float) -> str:
    facts = "\n".join(f"| {name} | {value} |" for name, value in machine.describe())
    reached = [figure.met for section in sections for figure in section.figures if figure.goals]
    flag = "" if plan.name == "normal" else f" -- --{plan.name}"
    return (f"# Results of `make bench{flag}`\n\n"
            "Every figure stands beside another that was measured in the same run, in alternating rounds; medians.\n"
            f"{sum(reached)} of {len(reached)} goals were met. The run took {seconds / 60:.0f} minutes; load average"
            f" at its end: {machine.load_average():.1f}.\n\n"
            f"| machine | |\n| --- | --- |\n{facts}\n\n" + "\n".join(section.markdown() for section in sections))


if __name__ == "__main__":
    raise SystemExit(main())
