"""Who asks, and how much of it he may: rates and amounts that hold for all API processes together."""
