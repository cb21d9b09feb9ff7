"""The command line, `incus-courier`."""
