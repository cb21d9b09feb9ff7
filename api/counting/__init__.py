"""What an API process counts for good, and the files that keep it."""
