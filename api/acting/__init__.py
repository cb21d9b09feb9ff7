"""Acting on tasks: asking the workers for it, choosing tasks and applying that, and handing out bytes."""
