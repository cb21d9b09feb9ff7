"""How a worker begins, and what it puts right while it works."""
