"""The metrics of this process: durations of requests, open streams, the circuit breaker, the build."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)
from starlette.types import Scope

from proxygrad.version import ENGINE_VERSION, __version__

#: Most responses take 1 to 25 ms; a long wait takes up to a minute.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: Labels never come from callers: other methods are counted as `other`, paths without a route as `none`.
METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
OTHER, NO_ROUTE = "other", "none"


class RequestMetrics:
    """The metrics of one application.

    ``followers`` counts the open event streams and long waits; ``breaker`` returns the state of the circuit
    breaker, one of ``breaker_states``. Both are called from any thread.
    """

    def __init__(
        self, followers: Callable[[], int], breaker: Callable[[], str], breaker_states: Sequence[str]
    ) -> None:
        self.in_progress = 0
        self.registry = registry = CollectorRegistry()
        self._durations = Histogram(
            "proxygrad_http_request_duration_seconds",
            "Seconds from a request to the start of its response.",
            ("method", "route", "status"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._series: dict[tuple[str, str, int], Histogram] = {}
        self._gauge(
            "proxygrad_http_requests_in_progress",
            "Requests whose responses have not ended, streams and long waits included.",
            lambda: self.in_progress,
        )
        self._gauge("proxygrad_followers", "Open event streams and long waits.", followers)
        circuit = Gauge(
            "proxygrad_redis_circuit_breaker",
            "State of the circuit breaker around Redis: 1 for the current one.",
            ("state",),
            registry=registry,
        )
        for state in breaker_states:
            circuit.labels(state).set_function(partial(_is_state, breaker, state))
        build = Info("proxygrad_build", "What runs here.", registry=registry)
        build.info({"version": __version__, "engine_version": ENGINE_VERSION})
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def observe(self, scope: Scope, status: int, duration_s: float) -> None:
        """Count a request whose response has started."""
        route = scope.get("route")
        path = NO_ROUTE if route is None else route.path
        method = scope["method"] if scope["method"] in METHODS else OTHER
        series = self._series.get((method, path, status))
        if series is None:
            series = self._series[method, path, status] = self._durations.labels(method, path, status)
        series.observe(duration_s)

    def _gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        Gauge(name, about, registry=self.registry).set_function(value)


def _is_state(current: Callable[[], str], state: str) -> bool:
    return current() == state
