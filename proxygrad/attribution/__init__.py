"""Attribution: how much each input value contributes to an objective, compared with a reference.

DeepLIFT with a rule for every operation, and gradient methods beside it. May import everything in
`proxygrad` but `cli`, `client` and `training`. Read `attribute`, then `recording.tape`, then `rules`.
"""
