"""What routes depend on: the caller's session, the backend, ids, and the names of query parameters."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import AfterValidator, StringConstraints

from proxygrad.protocol.base import ID_PATTERN
from proxygrad.protocol.problems import FieldError, ProblemCode
from service.auth.callers import STATE, Caller
from service.backend.backend import Backend
from service.backend.resources.base import JobResource
from service.backend.resources.session import JobSession
from service.backend.session import CallerSession
from service.problems import ProblemError
from service.web.validation import shortened, unknown_name

_ID = re.compile(ID_PATTERN)

#: The id of a visualization, a batch or a delivery, in a path. `known_form` checks its form.
ID: Any = Path(
    description="32 hex digits.",
    examples=["5f0c6a4b7d8e9f00112233445566778a"],
    json_schema_extra={"pattern": ID_PATTERN},
)
#: An id among the values of a filter.
FilterId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]


def known_form(unknown: ProblemCode, what: str) -> AfterValidator:
    """A check that a path may have the id: raises ``unknown`` for what can be the id of nothing."""

    def check(name: str) -> str:
        if not _ID.fullmatch(name):
            raise ProblemError(unknown, f"there is no {what} {shortened(name)!r}; an id has 32 hex digits")
        return name

    return AfterValidator(check)


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
        # No id: a route about all jobs. What has not the form of one is refused by the route.
        job_id = request.path_params[resource.parameter] if request.path_params else None
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
        detail, choices = (
            unknown_name("parameter", name, valid) if valid else ("there are no parameters here", None)
        )
        field_errors.append(FieldError(location=["query", shortened(name)], detail=detail, choices=choices))
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
