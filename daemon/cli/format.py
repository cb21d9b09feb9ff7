"""How times and names are shown to people."""

from daemon.config.naming import instance_name
from daemon.model.words import age

__all__ = ["age", "instance_name"]
