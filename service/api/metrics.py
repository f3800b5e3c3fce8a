"""`/metrics`: this process and the whole fleet, in the text formats of Prometheus and OpenMetrics."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from service.api.dependencies import BackendDep
from service.problems import problem_responses
from service.telemetry.scrape import Scrape
from workers.broker.safety import unsafe_settings

router = APIRouter(tags=["metrics"])

_log = logging.getLogger(__name__)

_TEXT = {"schema": {"type": "string"}}
_DESCRIPTION = (
    "The metrics that docs/metrics.md lists, as OpenMetrics for callers that accept "
    "`application/openmetrics-text`. Without Redis, those of this process alone."
)


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """The encoder for an `Accept` header, and its media type."""
    try:
        return choose_encoder(accept)
    except TypeError:  # for a version that is no number
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
async def read_metrics(request: Request, backend: BackendDep) -> Response:
    """The queue, the workers, and the response times of this process."""
    statistics = None
    unsafe: Mapping[str, str] = {}
    try:
        statistics = await backend.call(backend.statistics.take)
        unsafe = await backend.call(unsafe_settings, backend.redis)
    except RedisError as error:
        _log.warning("Redis failed during a scrape: %s", error)
    encode, media_type = _encoder(request.headers.get("accept", ""))
    content = await to_thread.run_sync(encode, Scrape(request.app.state.metrics, statistics, unsafe))
    return Response(content, media_type=media_type, headers={"Cache-Control": "no-store"})
