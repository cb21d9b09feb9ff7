"""What was handed on, kept in SQLite."""
