"""What this process measures of itself, for `/metrics`: each request until its answer starts.

So a stream of events and a download count by their first byte, and a long wait until it is answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxygrad.version import ENGINE_VERSION, __version__

#: Most answers take 1 to 25 ms; a wait may take a minute.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: Callers make no labels: what they send beside these is `other`, and what matches no route `none`.
METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
OTHER, NO_ROUTE = "other", "none"


class Metrics:
    """One application's own. ``followers`` says how many follow a job or a batch now, in any thread."""

    def __init__(self, followers: Callable[[], int]) -> None:
        self.in_progress = 0
        self.registry = registry = CollectorRegistry()
        self._durations = Histogram(
            "proxygrad_http_request_duration_seconds",
            "Seconds from a request to the start of its answer.",
            ("method", "route", "status"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._series: dict[tuple[str, str, int], Histogram] = {}
        in_progress = Gauge(
            "proxygrad_http_requests_in_progress",
            "Requests whose answers have not ended, streams and long waits included.",
            registry=registry,
        )
        in_progress.set_function(lambda: self.in_progress)
        following = Gauge(
            "proxygrad_followers", "Streams of events and long waits that are open.", registry=registry
        )
        following.set_function(followers)
        build = Info("proxygrad_build", "What runs here.", registry=registry)
        build.info({"version": __version__, "engine_version": ENGINE_VERSION})
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def observe(self, scope: Scope, status: int, duration_s: float) -> None:
        """One request, whose answer has started."""
        route = scope.get("route")
        path = NO_ROUTE if route is None else route.path
        method = scope["method"] if scope["method"] in METHODS else OTHER
        series = self._series.get((method, path, status))
        if series is None:
            series = self._series[method, path, status] = self._durations.labels(method, path, status)
        series.observe(duration_s)


class Instrumentation:
    """ASGI middleware: measures whatever passes, and changes nothing of it. Adds about 2 µs to a request."""

    def __init__(self, app: ASGIApp, measures: Metrics) -> None:
        self._app = app
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        measures, began_s, started = self._measures, perf_counter(), False

        def sending(message: Message) -> Awaitable[None]:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                measures.observe(scope, message["status"], perf_counter() - began_s)
            return send(message)

        measures.in_progress += 1
        try:
            await self._app(scope, receive, sending)
        except Exception:
            if not started:  # answered outside of all middleware
                measures.observe(scope, 500, perf_counter() - began_s)
            raise
        finally:
            measures.in_progress -= 1
