"""Settings of a worker process, and the connection to Redis that they describe.

Read from an environment that is passed in; nothing else of `workers` looks at environment variables.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, overload
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from proxygrad.paths import home, models_file
from workers.broker.connection import CONNECTION_WAIT_S, Connections
from workers.errors import QueueUnavailable, SettingsError

#: Retries of every command of a worker, waiting 0.1 s, then twice as long, at most 2 s each: two minutes.
#: With redis-py's default of 3 retries a Redis away for 3 to 20 s ended 2 to 4 of 8 slots; with these, none.
WORKER_RETRIES = 60
BACKOFF_BASE_S = 0.1
BACKOFF_CAP_S = 2.0

#: Far longer than any answer takes: only a dead peer meets it.
SOCKET_TIMEOUT_S = 10.0

#: A connection that was idle this long is checked before use: proxies drop idle ones silently, nginx for one
#: after 60 s without a word (the default of its `proxy_read_timeout`).
HEALTH_CHECK_S = 30

MAX_SLOTS = 256
_SCHEMES = ("redis", "rediss", "unix")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
PRECISIONS = ("auto", "float32", "tf32", "bfloat16")
MAX_THREADS = 1024
#: Less than a lease (`workers.queue.leases.LEASE_S`) would take jobs from an engine in the middle of a slow
#: step.
MIN_STALL_S = 6.0
MAX_STALL_S = 3600.0
MAX_GRACE_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a worker process is told.

    ``redis_url`` is None where `REDIS_URL` is not set: `proxygrad serve` then brings its own server.
    ``models_path`` is None where there is no `models.toml`: only the bundled model is served.
    ``model_memory_mb`` is None where the worker decides, ``keep_days`` and ``keep_gb`` where all is kept.
    """

    home: Path
    redis_url: str | None
    store_url: str
    models_path: Path | None
    slots: int = 8
    device: str = "auto"
    precision: str = "auto"
    model_memory_mb: int | None = None
    keep_days: float | None = None
    keep_gb: float | None = None
    threads: int | None = None
    stall_s: float = 60.0
    grace_s: float = 25.0

    def __post_init__(self) -> None:
        if not 1 <= self.slots <= MAX_SLOTS:
            raise SettingsError(f"PROXYGRAD_SLOTS is {self.slots}; valid: 1 to {MAX_SLOTS}")
        if not _DEVICE.fullmatch(self.device):
            raise SettingsError(
                f"PROXYGRAD_DEVICE is {self.device!r}; valid: auto, cpu, cuda, cuda:0, cuda:1, …"
            )
        if self.precision not in PRECISIONS:
            raise SettingsError(f"PROXYGRAD_PRECISION is {self.precision!r}; valid: {', '.join(PRECISIONS)}")
        self._check_bounds()
        bounds = (
            ("PROXYGRAD_THREADS", self.threads, 1, MAX_THREADS),
            ("PROXYGRAD_STALL_S", self.stall_s, MIN_STALL_S, MAX_STALL_S),
            ("PROXYGRAD_GRACE_S", self.grace_s, 0, MAX_GRACE_S),
        )
        for variable, value, least, most in bounds:
            if value is not None and not least <= value <= most:
                raise SettingsError(f"{variable} is {value:g}; valid: {least:g} to {most:g}")
        if self.redis_url is not None and urlsplit(self.redis_url).scheme not in _SCHEMES:
            raise SettingsError(
                f"REDIS_URL is {without_password(self.redis_url)!r}; valid: redis://host:port/0, rediss://…, unix:///path"
            )
        if self.models_path is not None and not self.models_path.is_file():
            raise SettingsError(f"PROXYGRAD_MODELS: there is no file {self.models_path}")

    def _check_bounds(self) -> None:
        if self.model_memory_mb is not None and self.model_memory_mb < 1:
            raise SettingsError(f"PROXYGRAD_MODEL_MEMORY_MB is {self.model_memory_mb}; valid: 1 or more")
        for name, bound in (("PROXYGRAD_KEEP_DAYS", self.keep_days), ("PROXYGRAD_KEEP_GB", self.keep_gb)):
            if bound is not None and not (bound >= 0 and math.isfinite(bound)):
                raise SettingsError(f"{name} is {bound:g}; valid: 0 or more, or unset to keep everything")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Settings from environment variables; an empty one counts as not set. Raises `SettingsError`."""
        return cls(
            home=home(environ),
            redis_url=environ.get("REDIS_URL") or None,
            store_url=environ.get("PROXYGRAD_STORE") or (home(environ) / "artifacts").as_uri(),
            models_path=models_file(environ),
            slots=_whole_number(environ, "PROXYGRAD_SLOTS", cls.slots),
            device=environ.get("PROXYGRAD_DEVICE") or cls.device,
            precision=environ.get("PROXYGRAD_PRECISION") or cls.precision,
            threads=_whole_number(environ, "PROXYGRAD_THREADS", None),
            stall_s=_seconds(environ, "PROXYGRAD_STALL_S", cls.stall_s),
            grace_s=_seconds(environ, "PROXYGRAD_GRACE_S", cls.grace_s),
            model_memory_mb=_whole_number(environ, "PROXYGRAD_MODEL_MEMORY_MB", None),
            keep_days=_number(environ, "PROXYGRAD_KEEP_DAYS"),
            keep_gb=_number(environ, "PROXYGRAD_KEEP_GB"),
        )


def _number(environ: Mapping[str, str], name: str) -> float | None:
    text = environ.get(name)
    try:
        return float(text) if text else None
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; valid: a number, or unset to keep everything") from None


@overload
def _whole_number(environ: Mapping[str, str], name: str, default: int) -> int: ...
@overload
def _whole_number(environ: Mapping[str, str], name: str, default: None) -> int | None: ...
def _whole_number(environ: Mapping[str, str], name: str, default: int | None) -> int | None:
    text = environ.get(name)
    try:
        return int(text) if text else default
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; valid: a whole number") from None


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    try:
        return float(text) if text else default
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; valid: a number of seconds") from None


def without_password(url: str) -> str:
    """The URL with the password, where it has one, shown as ``***``."""
    netloc_hidden = re.sub(r"(://[^:@/]*):[^/]*@", r"\1:***@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", netloc_hidden)


def connect(
    url: str,
    *,
    retries: int = WORKER_RETRIES,
    timeout_s: float = SOCKET_TIMEOUT_S,
    connections: int | None = None,
) -> redis.Redis:
    """A client, safe to share between threads; connects on first use.

    ``retries``: how often a command is tried again when Redis is away; a gateway that would rather answer
    503 at once passes 0. ``timeout_s``: for connecting and for each answer. ``connections``: how many it may
    open, None: as many as are wanted at once. Raises `SettingsError` for a URL that is not one of Redis.
    """
    options: dict[str, Any] = {
        "retry": Retry(ExponentialWithJitterBackoff(cap=BACKOFF_CAP_S, base=BACKOFF_BASE_S), retries),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": HEALTH_CHECK_S,
    }
    try:
        if connections is None:
            return redis.Redis.from_url(url, **options)
        pool = Connections.from_url(url, max_connections=connections, timeout=CONNECTION_WAIT_S, **options)
        return redis.Redis.from_pool(pool)
    except ValueError as exc:
        raise SettingsError(f"REDIS_URL is {without_password(url)!r}: {exc}") from exc


def require_redis(url: str, *, timeout_s: float = 3.0) -> None:
    """Return when Redis answers; raises `QueueUnavailable`, naming the URL, when it does not."""
    client = connect(url, retries=2, timeout_s=timeout_s)
    try:
        client.ping()
    except (RedisError, OSError) as exc:
        reason = str(exc).rstrip(".")
        raise QueueUnavailable(f"no Redis answers at {without_password(url)}: {reason}") from exc
    finally:
        client.close()
