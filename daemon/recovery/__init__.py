"""Putting queue and spool right after a crash, after damage, or for another number of shards."""
