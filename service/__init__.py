"""HTTP in front of the queue: the gateway, its client and the stack of one machine. Runs without torch.

Imports `workers` and `proxygrad`, but nothing of them that needs torch. The order of the layers, top first,
is `cli`, `stack`, `server`, `app`, `api`, `middleware`, `backend`, `web`, `schemas`. Read `app` first.
"""
