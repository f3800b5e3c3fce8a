"""Metrics for Prometheus: of the requests of this process, and of the whole fleet.

May import `workers.fleet` and nothing else of the service. Read `requests` first.
"""
