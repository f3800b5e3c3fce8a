"""Parameters that a route does not know: a misspelled filter would list everything, without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from proxygrad.errors import near
from proxygrad.protocol.problems import FieldError
from service.problems import ProblemError
from service.web.validation import SHOWN_CHARACTERS


def check_names(request: Request) -> None:
    """Hold the names in the query against those that the route takes; refuses with `invalid_request`."""
    if not request.scope["query_string"]:
        return
    valid = sorted(_names(request.scope["route"]))
    unknown = [name for name in request.query_params if name not in valid]
    if not unknown:
        return
    flaws = []
    for name in unknown[:3]:
        shown, choices = name[:SHOWN_CHARACTERS], near(name, valid) or valid
        said = (
            f"unknown parameter; valid: {', '.join(choices)}" if choices else "there are no parameters here"
        )
        flaws.append(FieldError(location=["query", shown], detail=said, choices=choices or None))
    what = "; ".join(f"query.{flaw.location[1]}: {flaw.detail}" for flaw in flaws)
    raise ProblemError("invalid_request", what, flaws)


def _names(route: APIRoute) -> set[str]:
    if route.endpoint not in _known:  # routes have no hash
        _known[route.endpoint] = _of(route.dependant)
    return _known[route.endpoint]


_known: dict[Callable[..., Any], set[str]] = {}


def _of(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_of(inner) for inner in dependant.dependencies))
