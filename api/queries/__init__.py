"""Questions about tasks, answered from the queue."""
