"""Small odd networks, each a few lines and of one kind, and how each comes out.

A network that somebody brings and that comes out wrong gets a case here, in the module of its group. Every
case runs through the library, the engine and what HTTP answers with, and is compared with `slow_loop`.
"""
