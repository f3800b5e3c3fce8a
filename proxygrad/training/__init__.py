"""Training: gradient activations for any optimizer, a comparison of ways to train, the bundled network, and
discriminators.

May import everything in `proxygrad` but `cli`; scikit-learn and SciPy for data and statistics, matplotlib for
curves. Read `gaf` for a loop of your own, `methods` and `runs` for the comparison, `digits` for the bundled
network, and `discriminator`.
"""
