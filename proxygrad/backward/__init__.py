"""The method: backward rules that replace the gradients of activations and pooling.

May import `proxygrad.spec` and `proxygrad.errors`, never `networks` or `engine`. Read `surrogate`, the
context manager first.
"""
