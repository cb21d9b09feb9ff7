"""What /usr/bin/incus-courier runs."""

from daemon.cli import main

main()
