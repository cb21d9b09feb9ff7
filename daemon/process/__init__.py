"""Processes: how they start, listen, watch over each other, speak with systemd, and end."""
