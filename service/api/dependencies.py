"""What routes depend on: the caller's session, the backend, ids, and the names of query parameters."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import StringConstraints

from proxygrad.errors import near
from proxygrad.protocol.base import ID_PATTERN
from proxygrad.protocol.problems import FieldError
from service.auth.callers import STATE, Caller
from service.backend.backend import Backend
from service.backend.resources.base import JobResource
from service.backend.resources.session import JobSession
from service.backend.session import CallerSession
from service.problems import ProblemError
from service.web.validation import SHOWN_CHARACTERS

_ID = re.compile(ID_PATTERN)

#: The id of a visualization, a batch or a delivery, in a path.
PathId = Annotated[
    str, Path(pattern=ID_PATTERN, description="32 hex digits.", examples=["5f0c6a4b7d8e9f00112233445566778a"])
]
#: An id among the values of a filter.
FilterId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]


async def _backend(request: Request) -> Backend:
    check_query_names(request)
    backend: Backend = request.app.state.backend
    return backend


async def _session(request: Request) -> CallerSession:
    check_query_names(request)
    return CallerSession(request.app.state.backend, request.scope["state"][STATE])


def job_session(resource: JobResource) -> Callable[[Request], Awaitable[JobSession]]:
    """The dependency that makes the caller's session for jobs of one kind.

    For a route about a job, it raises the problem `unknown` of the kind where the caller may not see it.
    """

    async def session(request: Request) -> JobSession:
        check_query_names(request)
        backend: Backend = request.app.state.backend
        caller: Caller = request.scope["state"][STATE]
        job_id = request.path_params.get("job_id")
        # What is no id is refused by the route.
        if job_id is None or caller.operates or not _ID.fullmatch(job_id):
            return JobSession(backend, caller, resource)
        return await JobSession.about_job(backend, caller, resource, job_id)

    return session


BackendDep = Annotated[Backend, Depends(_backend)]
SessionDep = Annotated[CallerSession, Depends(_session)]


def check_query_names(request: Request) -> None:
    """Refuse query parameters that the route does not have, with `invalid_request` and near names.

    FastAPI ignores them: a misspelled filter would list everything without a word.
    """
    if not request.scope["query_string"]:
        return
    valid = sorted(_query_names(request.scope["route"]))
    unknown = [name for name in request.query_params if name not in valid]
    if not unknown:
        return
    field_errors = []
    for name in unknown[:3]:
        shown, choices = name[:SHOWN_CHARACTERS], near(name, valid) or valid
        detail = (
            f"unknown parameter; valid: {', '.join(choices)}" if choices else "there are no parameters here"
        )
        field_errors.append(FieldError(location=["query", shown], detail=detail, choices=choices or None))
    summary = "; ".join(
        f"query.{field_error.location[1]}: {field_error.detail}" for field_error in field_errors
    )
    raise ProblemError("invalid_request", summary, field_errors)


def _query_names(route: APIRoute) -> set[str]:
    if route.endpoint not in _names_by_endpoint:  # routes have no hash
        _names_by_endpoint[route.endpoint] = _names_of(route.dependant)
    return _names_by_endpoint[route.endpoint]


_names_by_endpoint: dict[Callable[..., Any], set[str]] = {}


def _names_of(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_names_of(inner) for inner in dependant.dependencies))
