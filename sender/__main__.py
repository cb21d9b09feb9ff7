"""`python -m sender [--config FILE]`: send webhooks until told to stop."""

import argparse
import asyncio
import os
import socket
import sys
from functools import partial

from daemon import config as configuration
from daemon.errors import CourierError
from daemon.log import flush, log, setup
from daemon.process.exit_status import EXIT_OK, end_with
from daemon.process.parent_death import tie_to_parent
from daemon.process.reload import load_again
from daemon.process.socket_activation import take
from sender.service import Sender, listen


def main() -> int:
    """Run the sender; return the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m sender", description=__doc__)
    parser.add_argument("--config", help="the configuration file")
    file = parser.parse_args().config
    try:
        tie_to_parent()
        config = configuration.load(configuration.find_file(file))
        setup(config.log, "sender")
        passed = list(take().values())
        listener = socket.socket(fileno=passed[0]) if passed else listen(config)
        log("sender.started", pid=os.getpid())
        # Never closed: a name that is still being looked up would be waited for.
        asyncio.new_event_loop().run_until_complete(Sender(config, partial(load_again, file)).run(listener))
    except (CourierError, OSError) as error:
        return end_with("incus-courier sender", error)
    log("sender.stopped", pid=os.getpid())
    return EXIT_OK


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    flush(within_s=1.0)
    os._exit(status)
