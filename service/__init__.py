"""HTTP in front of the queue: the gateway and the stack of one machine. Runs without torch.

Imports `workers` and `proxygrad`, but nothing of them that needs torch. The order of the layers, top first,
is `cli`, `stack`, `server`, `app`, `api`, `middleware`, `backend`, `web`. Read `app` first.
"""
