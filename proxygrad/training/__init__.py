"""Training of the bundled digits network.

May import everything in `proxygrad` but `cli`; scikit-learn for the data set. Read `digits` first.
"""
