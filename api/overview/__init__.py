"""What an operator sees of the whole: how it stands, instance by instance, and how the last hour was."""
