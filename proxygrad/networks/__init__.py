"""A torch module as a network with named layers: layer discovery, capture of activations, fast variants.

May import `backward`, `objectives` and everything below them, never `engine`. Read `network` first.
"""
