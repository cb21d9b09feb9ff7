"""`python -m worker.check`: can the remotes of the configuration be reached? A line of JSON for each."""

import argparse

from daemon import config as configuration
from daemon.config import LOCAL
from daemon.errors import CourierError
from daemon.process.exit_status import EXIT_OK, end_with
from daemon.process.output import say_json
from worker.targets.registry import describe, open_target


def main() -> int:
    """Probe every remote; print [what, ok, detail, hint] for each."""
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
    """Ask one remote for a sign of life, and for its default project: [what, ok, detail, hint]."""
    what = f"remote {remote}"
    known = config.remote(remote)
    try:
        chosen = describe(remote, config)
        target = open_target(remote, config)
        target.probe()
        if known is not None:
            target.find_project(known.project)
        target.close()
    except CourierError as error:
        return [what, False, error.detail, error.kind.hint]
    except PermissionError as error:
        return [what, False, f"{error.filename}: {error.strerror}", "Run it as root or as the service's user."]
    return [what, True, f"{chosen['target']} at {chosen['endpoint']}", ""]


if __name__ == "__main__":
    raise SystemExit(main())
