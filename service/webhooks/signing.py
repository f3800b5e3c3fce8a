"""Signatures as Standard Webhooks has them, with a secret of each caller's own.

A caller's secret is derived from the operator's (HMAC-SHA256 of the caller's id), so that none is stored and
no caller can forge what another one is sent. Of several secrets of the operator each signs: while receivers
move from one to the next, both are valid.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import UTC, datetime

from standardwebhooks import Webhook

_PREFIX = "whsec_"
#: As Standard Webhooks has it: 24 to 64 random bytes.
LEAST_BYTES, MOST_BYTES = 24, 64
#: What secrets of callers are derived for: another use of the same secret gives other bytes.
_PURPOSE = b"proxygrad webhook "


class Signer:
    """Signs for callers. ``secrets``: as they are configured, the newest first; not shown in errors."""

    def __init__(self, secrets: str) -> None:
        """Raises `ValueError`, without the value."""
        self._masters = [_master(number, text) for number, text in enumerate(secrets.split(), 1)]

    def __bool__(self) -> bool:
        return bool(self._masters)

    def secrets(self, caller: str) -> list[str]:
        """The caller's secrets, as its receiver takes them, the newest first."""
        return [f"{_PREFIX}{base64.b64encode(key).decode()}" for key in self._keys(caller)]

    def headers(self, caller: str, message_id: str, body: str, now_s: float) -> dict[str, str]:
        """The three headers that say who sends it, and when: now, in seconds since 1970."""
        now = datetime.fromtimestamp(now_s, UTC)
        signatures = [Webhook(key).sign(message_id, now, body) for key in self._keys(caller)]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    def _keys(self, caller: str) -> list[bytes]:
        return [
            hmac.new(master, _PURPOSE + caller.encode(), hashlib.sha256).digest() for master in self._masters
        ]


def _master(number: int, text: str) -> bytes:
    bare = text.removeprefix(_PREFIX)
    try:
        secret = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except binascii.Error:
        raise ValueError(f"the {number}. value is not base64") from None
    if not LEAST_BYTES <= len(secret) <= MOST_BYTES:
        raise ValueError(f"the {number}. value has {len(secret)} bytes")
    return secret
