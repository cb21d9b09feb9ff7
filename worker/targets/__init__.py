"""The places that files are delivered to."""
