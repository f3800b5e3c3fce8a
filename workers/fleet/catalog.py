"""The catalog of served models, as live workers publish it in Redis.

Each worker publishes under its own key, which ends by itself soon after the worker stopped renewing it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import redis
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from proxygrad.protocol.problems import Problem
from proxygrad.spec import ModelInfo
from workers.broker import keys
from workers.broker.scripts import Script, pairs
from workers.cache import LRUCache

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
_EACH = TypeAdapter(list[dict[str, Any]])
_READINESS = TypeAdapter(dict[str, Problem | None])

#: What was complained about, by worker.
_told: LRUCache[str, bytes] = LRUCache(256)

_log = logging.getLogger(__name__)


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
    ready: dict[str, Problem | None] = {}
    for model in models:
        for capability in capabilities(model.name):
            ready[capability] = model.problem
            if model.info is not None:
                ready[f"{capability}@{model.info.version}"] = None
    Script(redis, "fleet/publish_models")(worker, words, _READINESS.dump_json(ready), round(ttl_s * 1000))


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


@dataclass(frozen=True)
class Fleet:
    """What live workers publish. ``unreadable``: those of which something cannot be read here."""

    models: Mapping[str, ServedModel]
    workers: Sequence[str]
    unreadable: Sequence[str]


def read(redis: redis.Redis) -> Fleet:
    """The live workers, and every model of theirs by name.

    What cannot be read, because a newer version wrote it or it is damaged, is left out, and logged once. A
    ready model wins over one with a problem. Of several with one name, which have other weights or another
    method, that of the most workers counts, and of as many the one of the newest version of the method.
    """
    words = _words(redis, "models")
    found: dict[str, list[ServedModel]] = {}
    unreadable = []
    for worker, word in words.items():
        models, whole = _models(worker, word)
        for model in models:
            found.setdefault(model.name, []).append(model)
        if not whole:
            unreadable.append(worker)
    models_by_name = {name: _chosen(found[name]) for name in sorted(found)}
    return Fleet(models_by_name, sorted(words), sorted(unreadable))


def served(redis: redis.Redis) -> dict[str, ServedModel]:
    """The models of `read` by name."""
    return dict(read(redis).models)


def live_workers(redis: redis.Redis) -> list[str]:
    """Names of the workers that live, sorted."""
    return sorted(_words(redis, "readiness"))


def obstacle(redis: redis.Redis, capability: str) -> Problem | None:
    """Why no live worker would take a job that needs ``capability`` now; None when one would.

    `no_worker`, `model_not_served`, or the problem that all of those have with it that know it. Cheap: reads
    no more of what workers publish than names.
    """
    words = _words(redis, "readiness")
    if not words:
        return Problem(code="no_worker", detail="no worker is alive; the job starts when one is")
    reasons: list[Problem] = []
    for worker, word in words.items():
        readiness = _readiness(worker, word)
        reason = readiness.get(capability)
        if reason is not None:
            reasons.append(reason)
        elif capability in readiness:
            return None
    detail = (
        f"none of the {len(words)} live workers serves model {capability!r}; the job starts when one does"
    )
    return reasons[0] if reasons else Problem(code="model_not_served", detail=detail)


def _chosen(models: Sequence[ServedModel]) -> ServedModel:
    ready = [model for model in models if model.info is not None]
    if not ready:
        return models[0]
    versions = Counter(_version(model) for model in ready)
    return max(ready, key=lambda model: (versions[_version(model)], _version(model)))


def _version(model: ServedModel) -> tuple[int, str, str]:
    """The newest method sorts last; engine versions are numbers, of which the longer is the higher."""
    assert model.info is not None
    engine = model.info.engine_version
    return len(engine) if engine.isdecimal() else 0, engine, model.info.digest


def _models(worker: str, word: bytes) -> tuple[Sequence[ServedModel], bool]:
    """What can be read of the models of a worker, and whether that is all."""
    try:
        return _MODELS.validate_json(word), True
    except ValidationError as error:
        _complain(worker, word, error)
    models = []
    with suppress(ValidationError):
        for each in _EACH.validate_json(word):
            with suppress(ValidationError):
                models.append(ServedModel.model_validate(each))
    return models, False


def _readiness(worker: str, word: bytes) -> dict[str, Problem | None]:
    try:
        return _READINESS.validate_json(word)
    except ValidationError as error:
        _complain(worker, word, error)
        return {}


def _complain(worker: str, word: bytes, error: ValidationError) -> None:
    """Once for the same words."""
    if _told.get(worker) != word:
        _told.put(worker, word)
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        _log.error(
            "worker %s publishes something that cannot be read here, which is left out: %s: %s",
            *(worker, where or "not JSON", first["msg"]),
        )


def _words(redis: redis.Redis, part: Literal["models", "readiness"]) -> dict[str, bytes]:
    flat = cast(list[bytes], Script(redis, "fleet/read_published")(part))
    return {name.decode(errors="replace"): word for name, word in pairs(flat).items()}
