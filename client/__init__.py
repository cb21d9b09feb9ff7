"""The commands that speak to a service by HTTP: no Incus, no root, no configuration file, no state of the service."""
