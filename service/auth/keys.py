"""API keys: scopes, limits, and how they are stored.

A key is ``pg_<id>_<secret>``, shown once. Redis keeps, in the hash ``proxygrad:keys``, a JSON record under
its id, with the SHA-256 of the secret. The secret is 256 random bits, so nobody can try candidates against a
leaked hash, and a slow hash made for passwords, which people choose, would buy nothing and cost each request.

A record is never removed: one that was revoked says so. From the first one on, keys are in force.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis import Redis

from proxygrad.errors import ProxyGradError
from service.auth.scopes import DEFAULT_IN_FLIGHT, DEFAULT_RATE_PER_MIN, DEFAULT_SCOPES, Scope
from workers.broker.keys import API_KEYS_KEY
from workers.broker.scripts import Script

log = logging.getLogger(__name__)

MAX_RATE_PER_MIN = 1_000_000
MAX_IN_FLIGHT = 1_000_000
MAX_EXPIRES_DAYS = 36_500
MAX_NAME = 100

_SECRET_BYTES = 32
_TOKEN = re.compile(r"pg_([0-9a-f]{12})_([0-9a-f]{64})")
#: What a secret is compared with when there is no record of its id: the hash of nothing that can be sent.
_NOBODY = "0" * 64


class KeyProblem(ProxyGradError):
    """A key cannot be made, found or read."""

    code = "key_error"


class Key(BaseModel):
    """The record of a key. Times are seconds since 1970, UTC; a limit of None is none."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    name: str = Field(min_length=1, max_length=MAX_NAME)
    digest: str = Field(pattern="^[0-9a-f]{64}$", repr=False)
    scopes: frozenset[Scope] = Field(min_length=1)
    rate_per_min: int | None = Field(default=DEFAULT_RATE_PER_MIN, ge=1, le=MAX_RATE_PER_MIN)
    in_flight: int | None = Field(default=DEFAULT_IN_FLIGHT, ge=1, le=MAX_IN_FLIGHT)
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def state(self, now_s: float) -> Literal["valid", "expired", "revoked"]:
        """Whether it opens anything at that time."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now_s else "valid"

    @classmethod
    def made(
        cls,
        name: str,
        scopes: Iterable[Scope],
        now_s: float,
        *,
        rate_per_min: int | None = DEFAULT_RATE_PER_MIN,
        in_flight: int | None = DEFAULT_IN_FLIGHT,
        expires_days: float | None = None,
    ) -> tuple[Self, str]:
        """A new record and its key; raises `KeyProblem` for values out of range."""
        _check_name(name)
        _check_days(expires_days)
        key_id, secret = secrets.token_hex(6), secrets.token_hex(_SECRET_BYTES)
        try:
            record = cls(
                id=key_id,
                name=name,
                digest=_digest(secret),
                scopes=frozenset(scopes),
                rate_per_min=rate_per_min,
                in_flight=in_flight,
                created_at=now_s,
                expires_at=None if expires_days is None else now_s + expires_days * 86_400,
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise KeyProblem(f"{first['loc'][0]} {first['input']!r}: {first['msg']}") from None
        return record, f"pg_{key_id}_{secret}"


@dataclass(frozen=True)
class KeySet:
    """All readable keys by id. ``in_force``: whether there is a record at all, readable or not.

    ``read_at_s``: when they were read, in seconds since 1970 on Redis' clock, by which keys expire.
    """

    keys: Mapping[str, Key]
    in_force: bool
    read_at_s: float = field(default=0.0, compare=False)


def _check_name(name: str) -> None:
    """Refuse control characters. Only for new keys: an older one with such a name stays valid."""
    refused = [character for character in name if unicodedata.category(character) in ("Cc", "Zl", "Zp")]
    if refused:
        raise KeyProblem(f"name {name!r} holds the control character {refused[0]!r}; valid: any without them")


def _check_days(days: float | None) -> None:
    """Refuse what would never expire (nan, inf: JSON knows neither), has expired, or is no date."""
    if days is not None and not 0 < days <= MAX_EXPIRES_DAYS:
        raise KeyProblem(f"expires_days {days!r}; valid: above 0, at most {MAX_EXPIRES_DAYS}")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def opened(token: str, keys: Mapping[str, Key]) -> Key | None:
    """The record that ``token`` belongs to, valid or not; None for an unknown id and for a wrong secret.

    The same work is done in both cases, so that they take the same time.
    """
    parts = _TOKEN.fullmatch(token)
    if parts is None:
        return None
    key = keys.get(parts[1])
    matches = hmac.compare_digest(_digest(parts[2]), key.digest if key is not None else _NOBODY)
    return key if matches else None


class Keys:
    """The keys in Redis. Safe to share between threads."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._add = Script(redis, "auth/add_key", package="service")
        self._revoke = Script(redis, "auth/revoke_key", package="service")

    def create(
        self,
        name: str,
        scopes: Sequence[Scope] = DEFAULT_SCOPES,
        *,
        rate_per_min: int | None = DEFAULT_RATE_PER_MIN,
        in_flight: int | None = DEFAULT_IN_FLIGHT,
        expires_days: float | None = None,
    ) -> tuple[Key, str]:
        """Store a new key: its record, and the key itself, which cannot be read again."""
        seconds, micros = self._redis.time()
        key, token = Key.made(
            name,
            scopes,
            seconds + micros // 1000 / 1000,  # milliseconds: Lua writes 14 digits when it revokes
            rate_per_min=rate_per_min,
            in_flight=in_flight,
            expires_days=expires_days,
        )
        if not self._add(key.id, key.model_dump_json()):
            raise KeyProblem(f"a key with the id {key.id!r} is there already; try again")
        return key, token

    def all(self) -> KeySet:
        """Every record, revoked and expired ones included, read by one command: all of one moment."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(API_KEYS_KEY)
            (seconds, micros), texts = cast("tuple[tuple[int, int], dict[bytes, bytes]]", pipe.execute())
        keys: dict[str, Key] = {}
        for key_id, text in texts.items():
            try:
                keys[key_id.decode()] = Key.model_validate_json(text)
            except (ValidationError, UnicodeDecodeError):
                log.error(
                    "the record %r in %s is no key of this version; it opens nothing", key_id, API_KEYS_KEY
                )
        return KeySet(keys, in_force=bool(texts), read_at_s=seconds + micros / 1e6)

    def revoke(self, key_id: str) -> Key:
        """Revoke the key; its record afterwards. Raises `KeyProblem` if there is none."""
        text = cast("bytes | None", self._revoke(key_id))
        if text is None:
            ids = ", ".join(sorted(self.all().keys)) or "there are none"
            raise KeyProblem(f"there is no key {key_id!r}; ids: {ids}")
        return Key.model_validate_json(text)
