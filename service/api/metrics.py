"""`/metrics`: this process and the whole fleet, in the text formats of Prometheus and OpenMetrics.

What is of the fleet is read from Redis for each scrape: every gateway says the same of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from service.backend.gateway import GatewayDep
from service.middleware.instrumentation import Metrics
from service.problems import problem_responses
from workers.fleet.statistics import FleetStatistics

router = APIRouter(tags=["metrics"])

_log = logging.getLogger(__name__)

_TEXT = {"schema": {"type": "string"}}
_DESCRIPTION = (
    "The metrics that docs/metrics.md lists; for who accepts `application/openmetrics-text`, in that form. "
    "Without Redis, those of this process alone."
)


class Scrape(Collector):
    """What one scrape answers: what the process measured and, unless Redis is away, how the fleet stands."""

    def __init__(self, measures: Metrics, census: FleetStatistics | None) -> None:
        self._measures = measures
        self._census = census

    def collect(self) -> Iterator[Metric]:
        """Every family, with its samples."""
        for family in self._measures.registry.collect():
            # When a series began is of no use here, and would be another line for each.
            family.samples = [each for each in family.samples if not each.name.endswith("_created")]
            yield family
        yield _gauge("proxygrad_redis_up", "Whether Redis answered.", self._census is not None)
        if self._census is not None:
            yield from _queue(self._census)
            yield from _fleet(self._census)


def _queue(census: FleetStatistics) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "proxygrad_jobs_waiting", "Jobs that wait for a slot.", labels=("priority", "model")
    )
    for labels, count in census.waiting.items():
        waiting.add_metric(labels, count)
    yield waiting
    about = "Seconds since the oldest waiting job was asked for; 0 with none."
    yield _gauge("proxygrad_oldest_waiting_job_seconds", about, census.oldest_s)
    yield _gauge("proxygrad_jobs_running", "Jobs that run.", census.running)
    ended = CounterMetricFamily("proxygrad_jobs_ended", "Jobs that ended.", labels=("state",))
    for state, count in census.ended.items():
        ended.add_metric((state,), count)
    yield ended
    yield CounterMetricFamily(
        "proxygrad_runs_lost", "Runs whose worker died or fell silent.", value=census.lost_runs
    )
    yield _gauge("proxygrad_batches_running", "Batches that have not ended.", census.batches)
    about = "Deliveries of webhooks that are due or will be tried again."
    yield _gauge("proxygrad_webhook_deliveries_pending", about, census.deliveries)


def _fleet(census: FleetStatistics) -> Iterator[Metric]:
    yield _gauge("proxygrad_workers", "Worker processes that live.", census.workers)
    yield _gauge("proxygrad_slots", "Jobs that they can run at a time.", census.slots)
    ready = GaugeMetricFamily(
        "proxygrad_model_ready", "Whether a live worker could load the model.", labels=("model",)
    )
    for name, is_ready in census.models.items():
        ready.add_metric((name,), is_ready)
    yield ready


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)


def _form(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """What writes it for who accepts that, and the media type."""
    try:
        return choose_encoder(accept)
    except TypeError:  # of a version that is no number
        return choose_encoder("")


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"description": _DESCRIPTION, "content": {"text/plain": _TEXT}},
        **problem_responses("invalid_request"),
    },
)
async def read_metrics(request: Request, gateway: GatewayDep) -> Response:
    """How the queue and the workers stand, and how long this process takes to answer."""
    census = None
    try:
        census = await gateway.call(gateway.censuses.take)
    except RedisError as error:
        _log.warning("Redis failed during a scrape: %s", error)
    write, media_type = _form(request.headers.get("accept", ""))
    content = await to_thread.run_sync(write, Scrape(request.app.state.measures, census))
    return Response(content, media_type=media_type, headers={"Cache-Control": "no-store"})
