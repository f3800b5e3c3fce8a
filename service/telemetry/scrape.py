"""One scrape: the metrics of this process and of the whole fleet, as a Prometheus collector.

Every gateway reports the same for the fleet: its queue and workers are read from Redis on each scrape.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.telemetry.requests import RequestMetrics
from workers.broker.safety import SETTINGS
from workers.fleet.statistics import FleetStatistics


class Scrape(Collector):
    """The metrics of one scrape: those of the process and, unless Redis is away, those of the fleet."""

    def __init__(
        self, requests: RequestMetrics, statistics: FleetStatistics | None, unsafe: Collection[str] = ()
    ) -> None:
        self._requests = requests
        self._statistics = statistics
        self._unsafe = unsafe

    def collect(self) -> Iterator[Metric]:
        """Every family, with its samples."""
        for family in self._requests.registry.collect():
            # The time when a series began has no use here, and would add a line to each.
            family.samples = [each for each in family.samples if not each.name.endswith("_created")]
            yield family
        yield _gauge("proxygrad_redis_up", "Whether Redis answered.", self._statistics is not None)
        if self._statistics is not None:
            yield from _queue(self._statistics)
            yield from _fleet(self._statistics)
            about = "Whether accepted jobs may be lost by a setting of Redis."
            unsafe = GaugeMetricFamily("proxygrad_redis_unsafe_setting", about, labels=("setting",))
            for setting in SETTINGS:
                unsafe.add_metric((setting,), setting in self._unsafe)
            yield unsafe


def _queue(statistics: FleetStatistics) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "proxygrad_jobs_waiting", "Jobs that wait for a slot.", labels=("priority", "kind", "model")
    )
    for labels, count in statistics.waiting.items():
        waiting.add_metric(labels, count)
    yield waiting
    about = "Seconds since the oldest waiting job was requested; 0 with none."
    yield _gauge("proxygrad_oldest_waiting_job_seconds", about, statistics.oldest_s)
    yield _gauge("proxygrad_jobs_running", "Jobs that run.", statistics.running)
    ended = CounterMetricFamily("proxygrad_jobs_ended", "Jobs that ended.", labels=("kind", "state"))
    for kind_and_state, count in statistics.ended.items():
        ended.add_metric(kind_and_state, count)
    yield ended
    yield CounterMetricFamily(
        "proxygrad_runs_lost", "Runs whose worker died or fell silent.", value=statistics.lost_runs
    )
    yield _gauge("proxygrad_batches_running", "Batches that have not ended.", statistics.batches)
    about = "Deliveries of webhooks that are due or will be tried again."
    yield _gauge("proxygrad_webhook_deliveries_pending", about, statistics.deliveries)


def _fleet(statistics: FleetStatistics) -> Iterator[Metric]:
    yield _gauge("proxygrad_workers", "Worker processes that live.", statistics.workers)
    yield _gauge("proxygrad_slots", "Jobs that they can run at a time.", statistics.slots)
    ready = GaugeMetricFamily(
        "proxygrad_model_ready", "Whether a live worker could load the model.", labels=("model",)
    )
    for name, is_ready in statistics.models.items():
        ready.add_metric((name,), is_ready)
    yield ready


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)
