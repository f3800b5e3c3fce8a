"""The routes: one router per resource, without logic of its own.

May import `backend`, `web`, `proxygrad.protocol` and everything below them. Read `visualizations` first.
"""
