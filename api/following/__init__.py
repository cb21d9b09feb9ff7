"""Learning what happens to tasks while it happens: one reader of events for each process, told to all who follow."""
