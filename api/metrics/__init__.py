"""What is measured, in the formats that Prometheus reads."""
