"""When the service is installed: an API that has to open an internet address itself gets the network for it.

The API's unit has no network, because systemd opens the addresses (docs/install.md). Units of before had one, and a
configuration of then may name an address that nobody else opens: an upgrade closes none.
"""

import argparse
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from daemon import config as configuration
from daemon.errors import CourierError
from daemon.process.exit_status import EXIT_OK
from daemon.process.output import say

_SOCKET: Final = "incus-courier-api.socket"
_DROP_IN: Final = Path("/etc/systemd/system/incus-courier-api.service.d/tcp-address.conf")
#: What systemd/examples/tcp-address.conf says.
SETTINGS: Final = ("PrivateNetwork=no", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "IPAddressAllow=localhost")
_TIMEOUT_S: Final = 20.0


def left_to_the_api(listen: Iterable[str], opened: Iterable[str]) -> list[str]:
    """The internet addresses of `listen` that are not among those that the service manager has opened."""
    passed = set(opened)
    plain = {address: address.removeprefix("tls:") for address in listen}
    return [address for address, bare in plain.items()
            if not bare.startswith(("unix:", "fd://")) and bare not in passed]


def main() -> int:
    """Write the drop-in where it is needed and missing, and say so; return the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m daemon.process.systemd_network", description=__doc__)
    parser.add_argument("--config", help="the configuration file")
    try:
        config = configuration.load(configuration.find_file(parser.parse_args().config))
    except CourierError:
        # The service itself says what is wrong with it.
        return EXIT_OK
    addresses = left_to_the_api(config.api.listen, _opened())
    if addresses and not _DROP_IN.exists():
        _DROP_IN.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        head = "# Made by the installation, because api.listen names an address that the API opens itself."
        _DROP_IN.write_text("\n".join([head, "[Service]", *SETTINGS, ""]))
        say(f"{_DROP_IN} gives the API the network for {', '.join(addresses)}.")
    return EXIT_OK


def _opened() -> list[str]:
    """The addresses of the API's socket unit; none where no service manager runs."""
    done = subprocess.run(["systemctl", "show", "--value", "-p", "Listen", _SOCKET], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=False, timeout=_TIMEOUT_S)
    return [line.split()[0] for line in done.stdout.splitlines() if line.strip()]


if __name__ == "__main__":
    raise SystemExit(main())
