"""What live workers serve, as they publish it in Redis.

Each worker publishes under its own key, which ends by itself soon after the worker stopped renewing it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self, cast

import redis
from pydantic import BaseModel, ConfigDict, TypeAdapter, model_validator

from proxygrad.spec import ModelInfo
from workers.jobs import Problem

#: Renewed every 3 s and gone after 10 s: three renewals may be late before a live worker looks dead, and a
#: killed one stops being offered within 10 s.
RENEW_S = 3.0
LIVE_TTL_S = 10.0

_WORKERS_KEY = "proxygrad:workers"  # worker names, scored by when their word ends


class ServedModel(BaseModel):
    """A model a worker was told to serve: ready, with its ``info``, or not, with the ``problem``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    info: ModelInfo | None = None
    problem: Problem | None = None

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.info is None) == (self.problem is None):
            raise ValueError(f"model {self.name!r} needs either an info or a problem")
        return self


_MODELS = TypeAdapter(tuple[ServedModel, ...])


def publish(
    redis: redis.Redis, worker: str, models: Sequence[ServedModel], ttl_s: float = LIVE_TTL_S
) -> None:
    """Say that ``worker`` lives and serves ``models``, for ``ttl_s`` seconds from now."""
    now = time.time()
    with redis.pipeline(transaction=True) as pipe:
        pipe.set(_models_key(worker), _MODELS.dump_json(tuple(models)), px=round(ttl_s * 1000))
        # The index only says whose keys to read; a day is far beyond any difference between clocks.
        pipe.zremrangebyscore(_WORKERS_KEY, "-inf", now - 24 * 3600)
        pipe.zadd(_WORKERS_KEY, {worker: now})
        pipe.execute()


def withdraw(redis: redis.Redis, worker: str) -> None:
    """Say that ``worker`` serves no more, without waiting for its word to end."""
    with redis.pipeline(transaction=True) as pipe:
        pipe.delete(_models_key(worker))
        pipe.zrem(_WORKERS_KEY, worker)
        pipe.execute()


def served(redis: redis.Redis) -> dict[str, ServedModel]:
    """Every model of every live worker by name; a ready one wins over one with a problem."""
    found: dict[str, ServedModel] = {}
    for words in _words(redis).values():
        for model in _MODELS.validate_json(words):
            if model.name not in found or found[model.name].info is None:
                found[model.name] = model
    return dict(sorted(found.items()))


def live_workers(redis: redis.Redis) -> list[str]:
    """Names of the workers that live, sorted."""
    return sorted(_words(redis))


def _words(redis: redis.Redis) -> dict[str, bytes]:
    names = [name.decode() for name in cast(list[bytes], redis.zrange(_WORKERS_KEY, 0, -1))]
    if not names:
        return {}
    words = cast("list[bytes | None]", redis.mget([_models_key(name) for name in names]))
    return {name: word for name, word in zip(names, words, strict=True) if word is not None}


def _models_key(worker: str) -> str:
    return f"proxygrad:worker:{worker}:models"
