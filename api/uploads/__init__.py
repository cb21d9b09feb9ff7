"""From the first byte of an upload to its place in the queue."""
