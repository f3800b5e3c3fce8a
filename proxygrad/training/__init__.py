"""Training of the bundled digits network, and of discriminators.

May import everything in `proxygrad` but `cli`; scikit-learn for the data set, matplotlib for curves. Read
`digits` first, or `discriminator`.
"""
