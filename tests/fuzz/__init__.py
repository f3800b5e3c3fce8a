"""Thousands of generated requests to a running service: `make fuzz`."""
