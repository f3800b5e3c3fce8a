"""``proxygrad keys``: make, list and revoke the keys that callers of the service need."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from proxygrad.protocol.requests import ANONYMOUS
from service.auth.scopes import DEFAULT_IN_FLIGHT, DEFAULT_RATE_PER_MIN, DEFAULT_SCOPES, SCOPES
from service.cli.serve import add_home, overridden

if TYPE_CHECKING:
    from redis import Redis

    from service.auth.keys import Key, Keys

HELP = "create, list and revoke API keys"
EXTRA = "service"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands. They find the keys by `REDIS_URL`, or in the data directory."""
    add_home(parser)
    verbs = parser.add_subparsers(title="subcommands", dest="verb", required=True, metavar="VERB")
    create = verbs.add_parser("create", help="create a key and print it once")
    create.add_argument("name", help="name of the owner, shown in the list; up to 100 characters")
    create.add_argument(
        "--scopes",
        type=_scopes,
        default=DEFAULT_SCOPES,
        metavar="SCOPES",
        help=f"with commas between: {', '.join(SCOPES)} (default {','.join(DEFAULT_SCOPES)})",
    )
    create.add_argument(
        "--rate",
        type=_limit,
        default=DEFAULT_RATE_PER_MIN,
        help="requests per minute, or none (default %(default)s)",
    )
    create.add_argument(
        "--in-flight",
        type=_limit,
        default=DEFAULT_IN_FLIGHT,
        help="jobs that may wait or run, or none (default %(default)s)",
    )
    create.add_argument(
        "--expires-days", type=float, metavar="DAYS", help="up to 36500; default: never expires"
    )
    verbs.add_parser("list", help="show all keys, without their secrets")
    revoke = verbs.add_parser("revoke", help="revoke a key")
    revoke.add_argument("id", help="id of the key: the part between the underscores, as `list` shows it")
    revoke.add_argument(
        "--cancel-jobs", action="store_true", help="cancel also what the key's caller has waiting or running"
    )
    secret = verbs.add_parser(
        "webhook-secret", help="print the secret with which a receiver verifies a key's webhooks"
    )
    secret.add_argument("name", help=f"name or id of the key, or {ANONYMOUS} where no key is asked for")
    for verb in verbs.choices.values():
        add_home(verb, argparse.SUPPRESS)  # What stands before the verb holds where nothing stands after it.


def run(arguments: argparse.Namespace) -> int:
    """Do it; raises a `ProxyGradError` that says why not."""
    environ = overridden(os.environ, arguments)
    if arguments.verb == "webhook-secret":
        for secret in webhook_secrets(environ, arguments.name):
            print(secret)
        return 0
    with _keys(environ) as (keys, redis):
        if arguments.verb == "create":
            _create(keys, arguments)
        elif arguments.verb == "list":
            found = keys.all()
            print(table(list(found.keys.values()), found.read_at_s))
        else:
            print(f"revoked {keys.revoke(arguments.id).id}; gateways follow within seconds", flush=True)
            if arguments.cancel_jobs:
                _cancel_jobs(redis, arguments.id)
    return 0


def _create(keys: Keys, arguments: argparse.Namespace) -> None:
    before = keys.all()
    key, token = keys.create(
        arguments.name,
        arguments.scopes,
        rate_per_min=arguments.rate,
        in_flight=arguments.in_flight,
        expires_days=arguments.expires_days,
    )
    print(token)
    _say(f"the key {key.id} of {key.name!r}: send it as `Authorization: Bearer …`; it is not shown again")
    if not before.in_force:
        _say("it is the first one: from now on every request needs a key")
    namesakes = [each.id for each in before.keys.values() if each.name == key.name and not each.revoked_at]
    if namesakes:
        _say(f"not revoked, of the same name: {', '.join(namesakes)} (`proxygrad keys revoke ID`)")


def _cancel_jobs(redis: Redis, caller: str) -> None:
    """Once no gateway takes the key any more, so that nothing is submitted afterwards."""
    from service.auth import key_ring
    from workers.batches.callers import cancel_all

    time.sleep(key_ring.MAX_AGE_S)
    canceled = cancel_all(redis, caller)
    print(f"canceled {canceled.jobs} visualizations and {canceled.batches} batches")


def webhook_secrets(environ: Mapping[str, str], name: str) -> list[str]:
    """The secrets of the caller with that key, the newest first; raises a `ProxyGradError`."""
    from service.auth.keys import KeyProblem
    from service.settings import ServiceSettings
    from service.webhooks.signing import Signer
    from workers.errors import SettingsError

    signer = Signer(ServiceSettings.from_env(environ).webhook_secret)
    if not signer:
        raise SettingsError("PROXYGRAD_WEBHOOK_SECRET is not set; give it the value that the gateways have")
    if name == ANONYMOUS:
        return signer.secrets(name)
    with _keys(environ) as (keys, _):
        known = keys.all().keys
    found = [name] if name in known else [key.id for key in known.values() if key.name == name]
    if not found:
        names = ", ".join(sorted({_printable(key.name) for key in known.values()})) or "none"
        raise KeyProblem(f"there is no key {name!r}; names: {names}, and {ANONYMOUS}")
    if len(found) > 1:
        raise KeyProblem(f"{len(found)} keys are called {name!r}; name one by its id: {', '.join(found)}")
    return signer.secrets(found[0])


@contextmanager
def _keys(environ: Mapping[str, str]) -> Iterator[tuple[Keys, Redis]]:
    """The keys of the server that `REDIS_URL` names, or of the one in the data directory, running or not."""
    from redis.exceptions import RedisError

    from service.auth.keys import Keys
    from service.settings import ServiceSettings
    from workers.broker.connection import connect, require_redis
    from workers.errors import QueueUnavailable

    settings = ServiceSettings.from_env(environ)
    with _server(settings.redis_url, settings.home / "valkey") as url:
        require_redis(url)
        with connect(url, retries=1, timeout_s=5.0) as redis:
            try:
                yield Keys(redis), redis
            except RedisError as error:
                raise QueueUnavailable(f"Redis did not do it: {error}") from error


@contextmanager
def _server(redis_url: str | None, data_dir: Path) -> Iterator[str]:
    """The URL of the server with the keys; the embedded one is started for this, if it is not up."""
    from service.stack.valkey import EmbeddedValkey
    from workers.broker.connection import require_redis
    from workers.errors import QueueUnavailable

    valkey = EmbeddedValkey(data_dir)
    if redis_url is not None:
        yield redis_url
        return
    try:
        require_redis(valkey.url_inside, timeout_s=1.0)
    except QueueUnavailable:
        with valkey:
            yield valkey.url
    else:
        yield valkey.url_inside


def table(keys: list[Key], now_s: float) -> str:
    """All keys, the oldest first, a line each."""
    head = ("id", "name", "state", "scopes", "a minute", "in flight", "created", "expires")
    rows = [head, *(_row(key, now_s) for key in sorted(keys, key=lambda key: (key.created_at, key.id)))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines) if keys else "there are no keys"


def _row(key: Key, now_s: float) -> tuple[str, ...]:
    return (
        *(key.id, _printable(key.name), key.state(now_s), ",".join(sorted(key.scopes, key=SCOPES.index))),
        *("–" if limit is None else str(limit) for limit in (key.rate_per_min, key.in_flight)),
        *("–" if at is None else _time(at) for at in _times(key)),
    )


def _printable(name: str) -> str:
    """A name that was kept before control characters were refused must not steer the terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name
    )


def _time(at: float) -> str:
    """A date to the minute; seconds since 1970 where the calendar ends before."""
    try:
        return f"{datetime.fromtimestamp(at, tz=UTC):%Y-%m-%d %H:%M}Z"
    except (OverflowError, ValueError, OSError):
        return f"{at:g}s"


def _times(key: Key) -> tuple[float, float | None]:
    return key.created_at, key.expires_at


def _scopes(text: str) -> tuple[str, ...]:
    scopes = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise argparse.ArgumentTypeError(f"{text!r}; valid, with commas between: {', '.join(SCOPES)}")
    return scopes


def _limit(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; valid: a whole number from 1, or none")
    return int(text)


def _say(text: str) -> None:
    import sys

    print(text, file=sys.stderr)
