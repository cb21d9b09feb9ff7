"""What a worker tidies up between the pushes."""
