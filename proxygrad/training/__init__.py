"""Training: gradient activations for any optimizer, a comparison of ways to train, the bundled network.

May import everything in `proxygrad` but `cli`; scikit-learn and SciPy for data and statistics. Read `gaf` for
a loop of your own, `methods` and `runs` for the comparison, and `digits` for the bundled network.
"""
