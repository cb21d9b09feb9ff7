"""`python -m worker.check`: can the remotes of the configuration be reached? A line of JSON for each."""

import argparse

from daemon import config as configuration
from daemon.config import LOCAL
from daemon.errors import CourierError, Undelivered
from daemon.process.exit_status import EXIT_OK, end_with
from daemon.process.output import say_json
from worker.targets.base import Target
from worker.targets.registry import describe, open_target


def main() -> int:
    """Probe every remote; print [what, ok, detail, hint, names of instances or null] for each."""
    parser = argparse.ArgumentParser(prog="python -m worker.check", description=__doc__)
    parser.add_argument("--config", help="the configuration file")
    try:
        config = configuration.load(configuration.find_file(parser.parse_args().config))
        for remote in (LOCAL, *config.remotes):
            say_json(probe(remote, config))
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
    return None if found is None else sorted(found)


if __name__ == "__main__":
    raise SystemExit(main())
