"""What the access log does not show: keys, and control characters that callers send."""

from __future__ import annotations

import logging
import re

from proxygrad.protocol.addresses import HIDDEN

#: A key of this service, wherever it stands; some clients quote what needs no quoting.
_KEY = re.compile(r"pg(?:_|%5f)[0-9a-f]{12}(?:_|%5f)[0-9a-f]+", re.IGNORECASE)
#: Names of parameters that are secrets, whatever they hold: callers send keys of other services too.
_SECRET = re.compile("key|token|secret|passw|auth|sig|credential", re.IGNORECASE)
#: The longest address is one of IPv6 with a zone and a port.
_MOST_CHARACTERS = 100


def without_secrets(record: logging.LogRecord) -> bool:
    """A filter of uvicorn's access log, which lets every record pass."""
    if isinstance(record.args, tuple) and len(record.args) == 5:
        address, method, target, *rest = record.args
        # X-Forwarded-For names the address, where a proxy is trusted with that.
        shown = _printable(str(address))[:_MOST_CHARACTERS]
        record.args = (shown, method, redacted(str(target)), *rest)
    return True


def redacted(target: str) -> str:
    """Path and query of a request, with `HIDDEN` for each secret."""
    path, question, query = target.partition("?")
    return _KEY.sub(HIDDEN, path + question + "&".join(map(_pair, query.split("&"))))


def _pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return name + equals + HIDDEN if equals and _SECRET.search(name) else pair


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
