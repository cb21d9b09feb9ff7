"""Measurements: what the service does, each figure beside a peer that was measured in the same run."""
