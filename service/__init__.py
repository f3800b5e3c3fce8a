"""HTTP in front of the queue: the gateway, its client, and the stack of one machine. Runs without torch."""
