"""The caller of a request, and its permissions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from proxygrad.protocol.requests import ANONYMOUS
from service.auth.keys import Key
from service.auth.scopes import SCOPES, Scope

#: Name of the caller in the ASGI scope's state.
STATE = "caller"


@dataclass(frozen=True)
class Caller:
    """The holder of a key, or anybody where keys are not in force."""

    name: str
    scopes: frozenset[Scope]
    in_flight: int | None = None

    @classmethod
    def of(cls, key: Key) -> Self:
        """The holder of ``key``. A caller is a key: two keys of one team are two callers."""
        return cls(key.id, key.scopes, key.in_flight)

    @property
    def anonymous(self) -> bool:
        """Whether callers are not distinguished."""
        return self.name == ANONYMOUS

    @property
    def operates(self) -> bool:
        """Whether it may cancel and delete the jobs of others."""
        return "admin" in self.scopes

    @property
    def sees_all(self) -> bool:
        """Whether it may see the jobs of others."""
        return self.operates or "read_all" in self.scopes

    def may(self, scope: Scope) -> bool:
        """Whether it has the scope; `admin` has all, and `read_all` is a wider `read`."""
        return scope in self.scopes or self.operates or (scope == "read" and self.sees_all)


ANYBODY = Caller(ANONYMOUS, frozenset(SCOPES))
