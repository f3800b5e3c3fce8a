"""What a key may do, and how often by default. Needs nothing, as every `proxygrad` command imports it."""

from __future__ import annotations

from typing import Literal, get_args

Scope = Literal["read", "submit", "read_all", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

DEFAULT_SCOPES: tuple[Scope, ...] = ("read", "submit")
#: Ten a second, kept up for a minute: more than any client needs that waits with `Prefer` or `?wait=`.
DEFAULT_RATE_PER_MIN = 600
#: Of the 2000 jobs of one caller that may wait by default, a tenth.
DEFAULT_IN_FLIGHT = 200
