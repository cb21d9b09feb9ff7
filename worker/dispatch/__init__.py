"""Which task is pushed when and by whom, and what becomes of it."""
