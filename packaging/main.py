"""What /usr/bin/incus-courier runs."""

from daemon.cli.main import main

main()
