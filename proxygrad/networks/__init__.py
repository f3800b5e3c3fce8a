"""A torch module as a network with named layers: layer discovery, capture of activations, fast variants.

May import `backward` and everything below it, never `engine`. Read `network` first.
"""
