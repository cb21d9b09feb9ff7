"""What the API and the workers stand on: configuration, tasks, queue, spool, logs, and the command line."""

#: The version of the service. The packages take it from here.
__version__ = "0.1.0"
