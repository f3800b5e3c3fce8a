"""The catalog of served models, as live workers publish it in Redis.

Each worker publishes under its own key, which ends by itself soon after the worker stopped renewing it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Self, cast

import redis
from pydantic import BaseModel, ConfigDict, TypeAdapter, model_validator

from proxygrad.protocol.problems import Problem
from proxygrad.spec import ModelInfo
from workers.broker import keys
from workers.broker.scripts import Script

#: Renewed every 3 s and gone after 10 s: three renewals may be late before a live worker looks dead, and a
#: killed one stops being offered within 10 s.
RENEW_S = 3.0
LIVE_TTL_S = 10.0


class ServedModel(BaseModel):
    """A model that a worker serves: ready, with its ``info``, or not, with the ``problem``."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer worker may publish more

    name: str
    info: ModelInfo | None = None
    problem: Problem | None = None

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.info is None) == (self.problem is None):
            raise ValueError(f"model {self.name!r} needs either an info or a problem")
        return self


_MODELS = TypeAdapter(tuple[ServedModel, ...])
_READINESS = TypeAdapter(dict[str, Problem | None])


def _model_alone(model: str) -> Sequence[str]:
    return (model,)


def publish(
    redis: redis.Redis,
    worker: str,
    models: Sequence[ServedModel],
    ttl_s: float = LIVE_TTL_S,
    capabilities: Callable[[str], Sequence[str]] = _model_alone,
) -> None:
    """Say that ``worker`` lives and serves ``models``, for ``ttl_s`` seconds from now."""
    words = _MODELS.dump_json(tuple(models))
    ready = _READINESS.dump_json(
        {capability: model.problem for model in models for capability in capabilities(model.name)}
    )
    Script(redis, "fleet/publish_models")(worker, words, ready, round(ttl_s * 1000))


def withdraw(redis: redis.Redis, worker: str) -> None:
    """Say that ``worker`` serves no more, without waiting for its word to end."""
    with redis.pipeline(transaction=True) as pipe:
        pipe.delete(keys.models_key(worker), keys.readiness_key(worker))
        pipe.zrem(keys.WORKERS_KEY, worker)
        pipe.execute()


class CatalogEntry:
    """What one worker publishes. Safe in several threads: after `withdraw`, `publish` does nothing.

    A renewal may be under way when the worker withdraws; `withdraw` waits for it, so that its word is the
    last one.
    """

    def __init__(
        self,
        redis: redis.Redis,
        worker: str,
        served: Callable[[], Sequence[ServedModel]],
        capabilities: Callable[[str], Sequence[str]] = _model_alone,
    ) -> None:
        self._redis = redis
        self._worker = worker
        self._served = served
        self._capabilities = capabilities
        self._lock = threading.Lock()
        self._withdrawn = False

    def publish(self) -> None:
        """Say that the worker lives and what it serves now, for `LIVE_TTL_S`."""
        with self._lock:
            if not self._withdrawn:
                publish(self._redis, self._worker, self._served(), capabilities=self._capabilities)

    def withdraw(self) -> None:
        """Say that the worker serves no more, for good."""
        self._withdrawn = True
        with self._lock:
            withdraw(self._redis, self._worker)


def served(redis: redis.Redis) -> dict[str, ServedModel]:
    """Every model of every live worker by name; a ready one wins over one with a problem."""
    found: dict[str, ServedModel] = {}
    for words in _words(redis, keys.models_key).values():
        for model in _MODELS.validate_json(words):
            if model.name not in found or found[model.name].info is None:
                found[model.name] = model
    return dict(sorted(found.items()))


def live_workers(redis: redis.Redis) -> list[str]:
    """Names of the workers that live, sorted."""
    return sorted(_words(redis, keys.readiness_key))


def obstacle(redis: redis.Redis, capability: str) -> Problem | None:
    """Why no live worker would take a job that needs ``capability`` now; None when one would.

    `no_worker`, `model_not_served`, or the problem that all of those have with it that know it. Cheap: reads
    no more of what workers publish than names.
    """
    words = _words(redis, keys.readiness_key)
    if not words:
        return Problem(code="no_worker", detail="no worker is alive; the job starts when one is")
    reasons: list[Problem] = []
    for word in words.values():
        readiness = _READINESS.validate_json(word)
        reason = readiness.get(capability)
        if reason is not None:
            reasons.append(reason)
        elif capability in readiness:
            return None
    detail = (
        f"none of the {len(words)} live workers serves model {capability!r}; the job starts when one does"
    )
    return reasons[0] if reasons else Problem(code="model_not_served", detail=detail)


def serves(redis: redis.Redis, model: str, digest: str, engine_version: str) -> bool:
    """Whether a live worker serves the model with those weights, by that method."""
    for words in _words(redis, keys.models_key).values():
        for each in _MODELS.validate_json(words):
            info = each.info
            if each.name == model and info and (info.digest, info.engine_version) == (digest, engine_version):
                return True
    return False


def _words(redis: redis.Redis, key: Callable[[str], str]) -> dict[str, bytes]:
    names = [name.decode() for name in cast(list[bytes], redis.zrange(keys.WORKERS_KEY, 0, -1))]
    if not names:
        return {}
    words = cast("list[bytes | None]", redis.mget([key(name) for name in names]))
    return {name: word for name, word in zip(names, words, strict=True) if word is not None}
