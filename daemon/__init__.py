"""What the API and the workers stand on: configuration, tasks, queue, spool, logs, and the command line."""
