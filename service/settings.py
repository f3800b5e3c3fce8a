"""Settings of the gateway, from environment variables that are passed in."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from proxygrad.protocol.addresses import is_loopback
from proxygrad.spec.settings import MAX_SIZE_PX, MAX_STEPS, MIN_SIZE_PX
from service.addresses import networks
from service.webhooks.signing import Signer
from service.webhooks.urls import AllowedHosts, BadURL
from workers.jobs.repository import Limits
from workers.settings import SharedSettings

#: A waiting job takes 1.9 KB of Redis (docs/measurements/queue.md): this many take 2 GB.
MOST_QUEUED = 1_000_000

#: The smallest request is under 100 bytes, one with every field at its longest under 3 kB.
LEAST_BODY_BYTES, MOST_BODY_BYTES = 1024, 16 * 1024**2
#: The largest that is held in memory, once for each request under way.
MOST_UPLOAD_BYTES = 64 * 1024**2
#: Decoded, a picture takes up to 8 bytes a pixel: 0.8 GB. The least is a small network's input.
LEAST_UPLOAD_PIXELS, MOST_UPLOAD_PIXELS = 1024, 100_000_000
#: Each unit that has ended takes some 100 bytes of Redis until a week after the end: 10 MB.
MOST_BATCH_UNITS = 100_000
#: A batch that costs this much would take a GPU days.
MOST_COST = 1e9

_HOST = re.compile(r"(\*\.)?[a-z0-9_:]([a-z0-9_.:-]*[a-z0-9_:])?")
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?)(:[0-9]{1,5})?")
_PUBLIC_URL = re.compile(_ORIGIN.pattern + r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", re.IGNORECASE)
_SECRETS = "whsec_ and base64 of 24 to 64 random bytes; several with spaces between, the newest first"


def _split(value: Any) -> Any:
    """The parts between commas, in lower case."""
    if isinstance(value, str):
        return tuple(part.strip().lower() for part in value.split(",") if part.strip())
    return value


def _check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(f"names {host!r}; valid: host names without port, *.example.org")
    return hosts


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"names {origin!r}; valid: https://host or https://host:port, no *")
    return origins


def _check_webhook_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        AllowedHosts(hosts)
    except BadURL as error:
        raise ValueError(
            f"names {error}; valid, with commas between: hooks.example.org, *.example.org, "
            "hooks.example.org:8443, http://hooks.example.org"
        ) from error
    return hosts


def _check_networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        networks(texts)
    except ValueError as error:
        raise ValueError(
            f"names no network: {error}; valid, with commas between: 10.0.0.0/8, fd00::/8"
        ) from error
    return texts


def _check_secret(secrets: str) -> str:
    try:
        Signer(secrets)
    except ValueError as error:
        raise ValueError(f"is not usable: {error}; valid: {_SECRETS}") from None
    return secrets


def _check_public_url(url: str) -> str:
    """The URL without a slash at its end."""
    url = url.rstrip("/")
    if not _PUBLIC_URL.fullmatch(url):
        raise ValueError(f"is {url!r}; valid: https://viz.example.org or https://example.org/viz")
    return url


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]


class ServiceSettings(SharedSettings):
    """The settings of a gateway process.

    ``require_keys`` None: keys are required where other machines can reach ``host``, or ``public_url`` names
    another host; False is refused where they reach ``host``.
    ``allowed_hosts`` empty: loopback names where no keys are required, else any name.
    """

    host: Annotated[str, Field(alias="PROXYGRAD_HOST", description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int, Field(alias="PROXYGRAD_PORT", ge=0, le=65535, description="Port to listen on; 0: any free one.")
    ] = 8000
    require_keys: Annotated[
        bool | None,
        Field(alias="PROXYGRAD_REQUIRE_KEYS", description="Whether every request needs a key."),
    ] = None
    allowed_hosts: Annotated[
        Names,
        AfterValidator(_check_hosts),
        Field(alias="PROXYGRAD_ALLOWED_HOSTS", description="Host names that requests may be for."),
    ] = ()
    public_url: Annotated[
        str,
        AfterValidator(_check_public_url),
        Field(alias="PROXYGRAD_PUBLIC_URL", description="Where callers find the service."),
    ] = ""
    cors_origins: Annotated[
        Names,
        AfterValidator(_check_origins),
        Field(alias="PROXYGRAD_CORS_ORIGINS", description="Origins whose pages may send requests."),
    ] = ()
    webhook_hosts: Annotated[
        Names,
        AfterValidator(_check_webhook_hosts),
        Field(alias="PROXYGRAD_WEBHOOK_HOSTS", description="Hosts that webhooks may be sent to."),
    ] = ()
    webhook_private: Annotated[
        Names,
        AfterValidator(_check_networks),
        Field(alias="PROXYGRAD_WEBHOOK_PRIVATE", description="Private networks that those hosts may be in."),
    ] = ()
    webhook_secret: Annotated[
        str,
        AfterValidator(_check_secret),
        Field(alias="PROXYGRAD_WEBHOOK_SECRET", repr=False, description="Secrets that sign webhooks."),
    ] = ""
    max_body_bytes: Annotated[
        int,
        Field(
            alias="PROXYGRAD_MAX_BODY_BYTES",
            ge=LEAST_BODY_BYTES,
            le=MOST_BODY_BYTES,
            description="Largest body of a request.",
        ),
    ] = 64 * 1024
    max_upload_bytes: Annotated[
        int,
        Field(
            alias="PROXYGRAD_MAX_UPLOAD_BYTES",
            ge=LEAST_BODY_BYTES,
            le=MOST_UPLOAD_BYTES,
            description="Largest body of a request with pictures.",
        ),
    ] = 8 * 1024**2
    max_upload_pixels: Annotated[
        int,
        Field(
            alias="PROXYGRAD_MAX_UPLOAD_PIXELS",
            ge=LEAST_UPLOAD_PIXELS,
            le=MOST_UPLOAD_PIXELS,
            description="Most pixels of the pictures of a request.",
        ),
    ] = 24_000_000
    max_batch_units: Annotated[
        int,
        Field(
            alias="PROXYGRAD_MAX_BATCH_UNITS",
            ge=1,
            le=MOST_BATCH_UNITS,
            description="Most units of a batch.",
        ),
    ] = 10_000
    max_cost: Annotated[
        float,
        Field(
            alias="PROXYGRAD_MAX_COST",
            gt=0,
            le=MOST_COST,
            description="Highest cost of a request, in megapixel steps.",
        ),
    ] = 600.0
    max_steps: Annotated[
        int,
        Field(alias="PROXYGRAD_MAX_STEPS", ge=1, le=MAX_STEPS, description="Most steps of a request."),
    ] = 2048
    max_size_px: Annotated[
        int,
        Field(
            alias="PROXYGRAD_MAX_SIZE_PX",
            ge=MIN_SIZE_PX,
            le=MAX_SIZE_PX,
            description="Largest image side of a request.",
        ),
    ] = 512
    max_queued: Annotated[
        int,
        Field(alias="PROXYGRAD_MAX_QUEUED", ge=1, le=MOST_QUEUED, description="Most jobs that may wait."),
    ] = Limits.queued
    max_queued_per_caller: Annotated[
        int,
        Field(
            alias="PROXYGRAD_MAX_QUEUED_PER_CALLER",
            ge=1,
            le=MOST_QUEUED,
            description="Most jobs of one caller that may wait.",
        ),
    ] = Limits.queued_per_caller

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.webhook_hosts and not Signer(self.webhook_secret):
            raise ValueError(
                f"PROXYGRAD_WEBHOOK_HOSTS is set and PROXYGRAD_WEBHOOK_SECRET is not; set it to {_SECRETS}"
            )
        if self.require_keys is False and not is_loopback(self.host):
            raise ValueError(
                f"PROXYGRAD_REQUIRE_KEYS is false and PROXYGRAD_HOST is {self.host!r}, which other machines "
                "can reach; listen on 127.0.0.1, or let it ask for keys (`proxygrad keys create`)"
            )
        return self

    @property
    def keys_required(self) -> bool:
        """Whether every request needs a key, even while none has been made."""
        if self.require_keys is not None:
            return self.require_keys
        return not all(map(is_loopback, [self.host, *self._public_host()]))

    def _public_host(self) -> list[str]:
        return [urlsplit(self.public_url).hostname or ""] if self.public_url else []

    @property
    def limits(self) -> Limits:
        """How many jobs may wait."""
        return Limits(queued=self.max_queued, queued_per_caller=self.max_queued_per_caller)
