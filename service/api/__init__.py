"""The routes: one router per resource, without logic of its own.

May import `backend`, `schemas`, `web` and everything below them. Read `visualizations` first.
"""
