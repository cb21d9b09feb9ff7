"""What /usr/bin/incus-courier runs."""

from client.main import main

main()
