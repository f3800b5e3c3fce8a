"""Settings of a worker process, and the connection to Redis that they describe.

Read from an environment that is passed in; nothing else of `workers` looks at environment variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from proxygrad.home import home, models_file
from workers.errors import QueueUnavailable, SettingsError

#: Retries of every command of a worker, waiting 0.1 s, then twice as long, at most 2 s each: two minutes.
#: With redis-py's default of 3 retries a Redis away for 3 to 20 s ended 2 to 4 of 8 slots; with these, none.
WORKER_RETRIES = 60
BACKOFF_BASE_S = 0.1
BACKOFF_CAP_S = 2.0

#: Longer than any blocking command of a worker (`workers.slots.POP_WAIT_S`): only a dead peer meets it.
SOCKET_TIMEOUT_S = 10.0

#: A connection that was idle this long is checked before use: proxies drop idle ones silently, nginx for one
#: after 60 s without a word (the default of its `proxy_read_timeout`).
HEALTH_CHECK_S = 30

MAX_SLOTS = 256
_SCHEMES = ("redis", "rediss", "unix")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a worker process is told.

    ``redis_url`` is None where `REDIS_URL` is not set: `proxygrad serve` then brings its own server.
    ``models_path`` is None where there is no `models.toml`: only the bundled model is served.
    """

    home: Path
    redis_url: str | None
    store_url: str
    models_path: Path | None
    slots: int = 8
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 1 <= self.slots <= MAX_SLOTS:
            raise SettingsError(f"PROXYGRAD_SLOTS is {self.slots}; valid: 1 to {MAX_SLOTS}")
        if not _DEVICE.fullmatch(self.device):
            raise SettingsError(
                f"PROXYGRAD_DEVICE is {self.device!r}; valid: auto, cpu, cuda, cuda:0, cuda:1, …"
            )
        if self.redis_url is not None and urlsplit(self.redis_url).scheme not in _SCHEMES:
            raise SettingsError(
                f"REDIS_URL is {without_password(self.redis_url)!r}; valid: redis://host:port/0, rediss://…, unix:///path"
            )
        if self.models_path is not None and not self.models_path.is_file():
            raise SettingsError(f"PROXYGRAD_MODELS: there is no file {self.models_path}")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Settings from environment variables; an empty one counts as not set. Raises `SettingsError`."""
        return cls(
            home=home(environ),
            redis_url=environ.get("REDIS_URL") or None,
            store_url=environ.get("PROXYGRAD_STORE") or (home(environ) / "artefacts").as_uri(),
            models_path=models_file(environ),
            slots=_whole_number(environ, "PROXYGRAD_SLOTS", cls.slots),
            device=environ.get("PROXYGRAD_DEVICE") or cls.device,
        )


def _whole_number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name)
    try:
        return int(text) if text else default
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; valid: a whole number") from None


def without_password(url: str) -> str:
    """The URL with the password, where it has one, shown as ``***``."""
    netloc_hidden = re.sub(r"(://[^:@/]*):[^/]*@", r"\1:***@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", netloc_hidden)


def connect(url: str, *, retries: int = WORKER_RETRIES, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A client, safe to share between threads; connects on first use.

    ``retries``: how often a command is tried again when Redis is away; a gateway that would rather answer
    503 at once passes 0. ``timeout_s``: for connecting and for each answer. Raises `SettingsError` for a
    URL that is not one of Redis.
    """
    backoff = ExponentialWithJitterBackoff(cap=BACKOFF_CAP_S, base=BACKOFF_BASE_S)
    try:
        return redis.Redis.from_url(
            url,
            retry=Retry(backoff, retries),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            health_check_interval=HEALTH_CHECK_S,
        )
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
