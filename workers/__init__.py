"""Jobs, the queue, the process that computes, and the store for what it made.

`jobs`, `catalog`, `storage` and `settings` run without torch: the gateway uses them too.
"""
