"""Attribution: how much each input value contributes to an objective, compared with a reference.

May import everything in `proxygrad` but `cli`, `client`, `maximization` and `training`.
"""
