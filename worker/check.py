"""`python -m worker.check`: can the remotes of the configuration be reached? A line of JSON for each."""

import argparse
from collections.abc import Iterable
from typing import Final

from daemon import config as configuration
from daemon.config import LOCAL
from daemon.config.cells import cell_of, claims
from daemon.config.naming import instance_name
from daemon.errors import CourierError, Undelivered
from daemon.model.upload import Destination
from daemon.process.exit_status import EXIT_OK, end_with
from daemon.process.output import say_json
from worker.targets.base import Target
from worker.targets.registry import describe, open_target

#: Instances that are named in one line.
_MOST: Final = 10


def main() -> int:
    """Probe every remote; print [what, ok, detail, hint, names of instances or null] for each."""
    parser = argparse.ArgumentParser(prog="python -m worker.check", description=__doc__)
    parser.add_argument("--config", help="the configuration file")
    try:
        config = configuration.load(configuration.find_file(parser.parse_args().config))
        for remote in (LOCAL, *config.remotes):
            say_json(probe(remote, config))
            if config.cells:
                say_json(sharing_out(remote, config))
    except CourierError as error:
        return end_with("incus-courier worker", error)
    return EXIT_OK


def probe(remote: str, config: configuration.Config) -> list[object]:
    """Ask one remote for a sign of life, its default project, and its instances; what `main` prints of it.

    The names are null where none are known, or every name is one.
    """
    what = f"remote {remote}"
    known = config.remote(remote)
    try:
        chosen = describe(remote, config)
        target = open_target(remote, config)
        target.probe()
        if known is not None:
            target.find_project(known.project)
        names = _names(target)
        target.close()
    except CourierError as error:
        return [what, False, error.detail, error.kind.hint, None]
    except PermissionError as error:
        return [what, False, f"{error.filename}: {error.strerror}", "Run it as root or as the service's user.", None]
    return [what, True, f"{chosen['target']} at {chosen['endpoint']}", "", names]


def _names(target: Target) -> list[str] | None:
    try:
        found = target.instances()
    except Undelivered:
        # Who may deliver need not be let see all.
        return None
    return None if found is None else sorted({name for _, name in found})


def sharing_out(remote: str, config: configuration.Config) -> list[object]:
    """See whether each instance of a remote is in one cell, no more and no fewer; what `main` prints of it."""
    what = f"cells of {remote}"
    try:
        target = open_target(remote, config)
        known = target.instances()
        target.close()
    except (CourierError, PermissionError) as error:
        return [what, False, f"which instances there are cannot be seen: {error}", "See the remote's own line.", []]
    if known is None:
        return [what, True, "every name is an instance there", "", []]
    found = [Destination(remote, project, instance, "/") for project, instance in sorted(known)]
    wrong = faults(found, config)
    own = sum(cell is not None and cell.name == config.cell.name for cell in (
        cell_of(to, config.cells) for to in found))
    if wrong:
        more = f"; and {len(wrong) - _MOST} more" if len(wrong) > _MOST else ""
        return [what, False, "; ".join(wrong[:_MOST]) + more,
                "Have each instance named by one of [[cells]], on each host.", []]
    return [what, True, f"{len(found)} instances, of which {own} are this one's", "", []]


def faults(instances: Iterable[Destination], config: configuration.Config) -> list[str]:
    """What is wrong with whose each of these instances is. Pure."""
    wrong = []
    for to in instances:
        claiming = [cell.name for cell in config.cells if not cell.has_rest and claims(cell, to)]
        if len(claiming) > 1:
            wrong.append(f"{instance_name(to, config)} is claimed by {' and '.join(claiming)}")
        elif cell_of(to, config.cells) is None:
            wrong.append(f"{instance_name(to, config)} is in no cell")
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
