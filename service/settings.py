"""Settings of the gateway and of the stack around it, read from an environment that is passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Self

from proxygrad.settings import MAX_SIZE_PX, MAX_STEPS, MIN_SIZE_PX
from workers import settings as workers_settings
from workers.errors import SettingsError

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True, kw_only=True)
class Settings(workers_settings.Settings):
    """What the gateway is told, beside what it shares with the workers.

    ``max_steps`` and ``max_size_px`` are the operator's limits, at most those of `proxygrad.spec`.
    Any caller may submit work, so an address that other machines reach needs ``allow_anonymous``.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    allow_anonymous: bool = False
    max_steps: int = 2048
    max_size_px: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        _within("PROXYGRAD_PORT", self.port, 0, 65535)
        _within("PROXYGRAD_MAX_STEPS", self.max_steps, 1, MAX_STEPS)
        _within("PROXYGRAD_MAX_SIZE_PX", self.max_size_px, MIN_SIZE_PX, MAX_SIZE_PX)
        if not self.allow_anonymous and not is_loopback(self.host):
            raise SettingsError(
                f"PROXYGRAD_HOST is {self.host!r}, which other machines can reach, and callers are not asked "
                "who they are; listen on 127.0.0.1, or set PROXYGRAD_ALLOW_ANONYMOUS=true to serve everybody"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Settings from environment variables; an empty one counts as not set. Raises `SettingsError`."""
        return replace(
            super().from_env(environ),
            host=environ.get("PROXYGRAD_HOST") or cls.host,
            port=_number(environ, "PROXYGRAD_PORT", cls.port),
            allow_anonymous=_switch(environ, "PROXYGRAD_ALLOW_ANONYMOUS", cls.allow_anonymous),
            max_steps=_number(environ, "PROXYGRAD_MAX_STEPS", cls.max_steps),
            max_size_px=_number(environ, "PROXYGRAD_MAX_SIZE_PX", cls.max_size_px),
        )


def is_loopback(host: str) -> bool:
    """Whether `host` can be reached from this machine alone; of names, only `localhost` is known to be."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _within(name: str, value: int, least: int, greatest: int) -> None:
    if not least <= value <= greatest:
        raise SettingsError(f"{name} is {value}; valid: {least} to {greatest}")


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError as error:
        raise SettingsError(f"{name} is {text!r}; valid: a whole number") from error


def _switch(environ: Mapping[str, str], name: str, default: bool) -> bool:
    text = environ.get(name, "").strip().lower()
    if text not in (*_TRUE, *_FALSE, ""):
        raise SettingsError(f"{name} is {text!r}; valid: true, false")
    return default if not text else text in _TRUE
