"""The spool: the bytes of uploads on the disk."""
