"""Settings of the gateway and of the stack around it, read from an environment that is passed in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from proxygrad.protocol.addresses import is_loopback
from proxygrad.spec.settings import MAX_SIZE_PX, MAX_STEPS, MIN_SIZE_PX
from service.addresses import networks
from service.webhooks.signing import Signer
from service.webhooks.urls import AllowedHosts, BadURL
from workers import settings as workers_settings
from workers.errors import SettingsError
from workers.jobs.repository import Limits

#: A waiting job takes 1.9 KB of Redis (docs/queue.md): this many take 2 GB.
MOST_QUEUED = 1_000_000

#: The smallest question is under 100 bytes, one with every field at its longest under 3 kB.
LEAST_BODY_BYTES, MOST_BODY_BYTES = 1024, 16 * 1024**2
#: Each unit that has ended takes some 100 bytes of Redis until a week after the end: 10 MB.
MOST_BATCH_UNITS = 100_000
#: A batch of it all would take a GPU days.
MOST_COST = 1e9

_HOST = re.compile(r"(\*\.)?[a-z0-9_:]([a-z0-9_.:-]*[a-z0-9_:])?")
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?)(:[0-9]{1,5})?")
_SECRETS = "whsec_ and base64 of 24 to 64 random bytes; several with spaces between, the newest first"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True, kw_only=True)
class Settings(workers_settings.Settings):
    """What the gateway is told, beside what it shares with the workers.

    ``max_steps`` and ``max_size_px`` are the operator's limits, at most those of `proxygrad.spec`;
    ``max_batch_units`` says how many units one batch may have; ``max_queued`` and
    ``max_queued_per_caller`` say how many jobs may wait; ``max_cost``, in megapixel steps,
    what one request may cost. ``require_keys`` None: where other machines can reach ``host``, which is where
    it cannot be False. ``allowed_hosts`` empty: loopback names where no keys are required, else any.
    ``webhook_hosts`` may be told of ends, also where they are in the networks ``webhook_private``.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    require_keys: bool | None = None
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    webhook_hosts: tuple[str, ...] = ()
    webhook_private: tuple[str, ...] = ()
    webhook_secret: str = field(default="", repr=False)
    max_body_bytes: int = 64 * 1024
    max_batch_units: int = 10_000
    max_cost: float = 600.0
    max_steps: int = 2048
    max_size_px: int = 512
    max_queued: int = Limits.queued
    max_queued_per_caller: int = Limits.queued_per_caller

    def __post_init__(self) -> None:
        super().__post_init__()
        _within("PROXYGRAD_PORT", self.port, 0, 65535)
        _within("PROXYGRAD_MAX_STEPS", self.max_steps, 1, MAX_STEPS)
        _within("PROXYGRAD_MAX_SIZE_PX", self.max_size_px, MIN_SIZE_PX, MAX_SIZE_PX)
        _within("PROXYGRAD_MAX_QUEUED", self.max_queued, 1, MOST_QUEUED)
        _within("PROXYGRAD_MAX_QUEUED_PER_CALLER", self.max_queued_per_caller, 1, MOST_QUEUED)
        _within("PROXYGRAD_MAX_BODY_BYTES", self.max_body_bytes, LEAST_BODY_BYTES, MOST_BODY_BYTES)
        _within("PROXYGRAD_MAX_BATCH_UNITS", self.max_batch_units, 1, MOST_BATCH_UNITS)
        if not 0 < self.max_cost <= MOST_COST:
            raise SettingsError(
                f"PROXYGRAD_MAX_COST is {self.max_cost:g}; valid: above 0, up to {MOST_COST:g}"
            )
        self._check_names()
        self._check_webhooks()
        if self.require_keys is False and not is_loopback(self.host):
            raise SettingsError(
                f"PROXYGRAD_REQUIRE_KEYS is false and PROXYGRAD_HOST is {self.host!r}, which other machines "
                "can reach; listen on 127.0.0.1, or let it ask for keys (`proxygrad keys create`)"
            )

    def _check_names(self) -> None:
        for host in self.allowed_hosts:
            if not _HOST.fullmatch(host):
                raise SettingsError(
                    f"PROXYGRAD_ALLOWED_HOSTS names {host!r}; valid: host names without port, *.example.org"
                )
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise SettingsError(
                    f"PROXYGRAD_CORS_ORIGINS names {origin!r}; valid: https://host or https://host:port, no *"
                )

    def _check_webhooks(self) -> None:
        try:
            AllowedHosts(self.webhook_hosts)
        except BadURL as error:
            raise SettingsError(
                f"PROXYGRAD_WEBHOOK_HOSTS names {error}; valid, with commas between: hooks.example.org, "
                "*.example.org, hooks.example.org:8443, http://hooks.example.org"
            ) from error
        try:
            networks(self.webhook_private)
        except ValueError as error:
            raise SettingsError(
                f"PROXYGRAD_WEBHOOK_PRIVATE: {error}; valid, with commas between: 10.0.0.0/8, fd00::/8"
            ) from error
        try:
            signer = Signer(self.webhook_secret)
        except ValueError as error:
            raise SettingsError(f"PROXYGRAD_WEBHOOK_SECRET: {error}; valid: {_SECRETS}") from None
        if self.webhook_hosts and not signer:
            raise SettingsError(
                f"PROXYGRAD_WEBHOOK_HOSTS is set and PROXYGRAD_WEBHOOK_SECRET is not; set it to {_SECRETS}"
            )

    @property
    def keys_required(self) -> bool:
        """Whether a key is asked for even where none has been made."""
        return not is_loopback(self.host) if self.require_keys is None else self.require_keys

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Settings from environment variables; an empty one counts as not set. Raises `SettingsError`."""
        return replace(
            super().from_env(environ),
            host=environ.get("PROXYGRAD_HOST") or cls.host,
            port=_number(environ, "PROXYGRAD_PORT", cls.port),
            require_keys=_switch(environ, "PROXYGRAD_REQUIRE_KEYS"),
            allowed_hosts=_names(environ, "PROXYGRAD_ALLOWED_HOSTS"),
            cors_origins=_names(environ, "PROXYGRAD_CORS_ORIGINS"),
            webhook_hosts=_names(environ, "PROXYGRAD_WEBHOOK_HOSTS"),
            webhook_private=_names(environ, "PROXYGRAD_WEBHOOK_PRIVATE"),
            webhook_secret=environ.get("PROXYGRAD_WEBHOOK_SECRET", "").strip(),
            max_body_bytes=_number(environ, "PROXYGRAD_MAX_BODY_BYTES", cls.max_body_bytes),
            max_batch_units=_number(environ, "PROXYGRAD_MAX_BATCH_UNITS", cls.max_batch_units),
            max_cost=_decimal(environ, "PROXYGRAD_MAX_COST", cls.max_cost),
            max_steps=_number(environ, "PROXYGRAD_MAX_STEPS", cls.max_steps),
            max_size_px=_number(environ, "PROXYGRAD_MAX_SIZE_PX", cls.max_size_px),
            max_queued=_number(environ, "PROXYGRAD_MAX_QUEUED", cls.max_queued),
            max_queued_per_caller=_number(
                environ, "PROXYGRAD_MAX_QUEUED_PER_CALLER", cls.max_queued_per_caller
            ),
        )

    @property
    def limits(self) -> Limits:
        """What the queue may hold."""
        return Limits(queued=self.max_queued, queued_per_caller=self.max_queued_per_caller)


def _within(name: str, value: int, least: int, greatest: int) -> None:
    if not least <= value <= greatest:
        raise SettingsError(f"{name} is {value}; valid: {least} to {greatest}")


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError as error:
        raise SettingsError(f"{name} is {text!r}; valid: a whole number") from error


def _decimal(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        return float(text)
    except ValueError as error:
        raise SettingsError(f"{name} is {text!r}; valid: a number") from error


def _names(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    """The parts between commas, in lower case."""
    return tuple(part.strip().lower() for part in environ.get(name, "").split(",") if part.strip())


def _switch(environ: Mapping[str, str], name: str) -> bool | None:
    text = environ.get(name, "").strip().lower()
    if text not in (*_TRUE, *_FALSE, ""):
        raise SettingsError(f"{name} is {text!r}; valid: true, false, or unset")
    return text in _TRUE if text else None
