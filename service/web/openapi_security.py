"""Keys and rate limits in the OpenAPI document: the same for every route behind authentication."""

from __future__ import annotations

from typing import Any

from proxygrad.protocol.problems import ProblemCode
from service.problems import problem_responses
from service.web.paths import OPEN_PATHS

_EVERYWHERE: tuple[ProblemCode, ...] = (
    *("unknown_host", "headers_too_large", "request_timeout", "too_many_connections"),
)
_WITH_KEYS: tuple[ProblemCode, ...] = ("unauthorized", "forbidden", "rate_limited", "redis_unavailable")
_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "pg_<id>_<secret>",
    "description": "A key of `proxygrad keys create`, where the server requires one.",
}
_LIMITS = {
    "RateLimit": "What the key has left: `r` requests; the full quota again in `t` seconds.",
    "RateLimit-Policy": "The key's quota: `q` requests in `w` seconds.",
}


def describe_keys(document: dict[str, Any]) -> None:
    """Add the security scheme, and to each operation behind it the responses of the middleware."""
    document["components"]["securitySchemes"] = {"key": _SCHEME}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            _add_responses(operation["responses"], _EVERYWHERE)
            if path not in OPEN_PATHS:
                operation["security"] = [{"key": []}, {}]
                _add_responses(operation["responses"], _WITH_KEYS)
                limited = operation["responses"]["429"].setdefault("headers", {})
                for name, about in _LIMITS.items():
                    limited[name] = {"description": about, "schema": {"type": "string"}}


def _add_responses(responses: dict[str, Any], codes: tuple[ProblemCode, ...]) -> None:
    for status, response in problem_responses(*codes).items():
        documented = responses.setdefault(str(status), response)
        for part in response["description"].split("; "):
            if part not in documented["description"]:
                documented["description"] += f"; {part}"
        if "headers" in response:
            documented["headers"] = response["headers"] | documented.get("headers", {})
