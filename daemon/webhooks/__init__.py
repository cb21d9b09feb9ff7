"""What those who own the outbox and those who send from it have in common."""
