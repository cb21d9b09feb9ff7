"""Uploads that go on where they were cut off, whatever protocol they come by."""
