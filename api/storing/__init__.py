"""The process that stores the small uploads of all that take uploads, in batches that are larger than any one's own."""
