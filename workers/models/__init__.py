"""Networks in a worker process: which are loaded, which may stay, what is known without loading.

May import `proxygrad`, `jobs`, `fleet` and everything below them. Read `model_cache` first.
"""
