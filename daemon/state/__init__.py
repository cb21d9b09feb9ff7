"""The state directory: where things are, and who holds which of its locks."""
