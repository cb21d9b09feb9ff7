"""Incus and LXD as a target: REST, SFTP, the files API, events."""
