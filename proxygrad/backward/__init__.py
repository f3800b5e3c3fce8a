"""The method: backward rules that replace the gradients of activations and pooling.

May import `proxygrad.spec`, `proxygrad.torch_function` and `proxygrad.errors`, never `networks` or `engine`.
Read `surrogate`, the context manager, first, then `rectifiers`.
"""
