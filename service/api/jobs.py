"""What the routes of every kind of job have in common: create, read, cancel, retry, delete, follow.

A kind has a router of its own, with its documents, examples and problems (`service.api.visualizations`). The
router here has what is about jobs of all kinds: those of a caller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from proxygrad.protocol.addresses import CALLERS
from proxygrad.protocol.jobs import CallerCancellation
from proxygrad.protocol.problems import FieldError
from service.api.dependencies import SessionDep
from service.backend import admission
from service.backend.event_hub import Subscription, TooManyFollowers
from service.backend.event_stream import EventStream
from service.backend.idempotency import key_of
from service.backend.long_polling import RETRY_AFTER_S, preferred_wait_s
from service.backend.resources.session import JobSession
from service.problems import ProblemError, problem_responses
from service.web.json_body import json_body
from workers.fleet import catalog
from workers.jobs.job import Job
from workers.jobs.repository import is_event_id

#: Kinds of events that end up in the stream.
EVENT_KINDS = frozenset({"state", "progress", "preview", "withdrawn"})

router = APIRouter(prefix=CALLERS, tags=["visualizations"])

CallerName = Annotated[
    str,
    Path(
        pattern=r"^([0-9a-f]{12}|anonymous)$",
        description="Id of a key, the part between its underscores; or `anonymous`.",
        examples=["a1b2c3d4e5f6"],
    ),
]

_STREAM_HEADERS = {"Cache-Control": "no-cache, no-store", "X-Accel-Buffering": "no"}


@router.post(
    "/{caller}/cancel",
    summary="Cancel everything of a caller",
    responses=problem_responses("forbidden", "unknown_caller", "invalid_request", "redis_unavailable"),
)
async def cancel_caller(caller: CallerName, session: SessionDep) -> CallerCancellation:
    """Its visualizations and batches that wait or run, as each `cancel` does. Safe to repeat.

    That of another caller needs a key with the scope `admin`. What others requested too goes on for them.
    """
    canceled = await session.cancel_caller(caller)
    return CallerCancellation(visualizations=canceled.jobs, batches=canceled.batches)


async def create(session: JobSession, request: Request) -> Response:
    """Submit the job that the body requests; with `Prefer: wait=N`, wait for its end."""
    backend, resource = session.backend, session.resource
    wait_s = preferred_wait_s(request.headers.get("prefer"))
    body = backend.requests.parse(resource, await json_body(request))
    job = await session.submit(admission.check_webhook(body, backend.allowed_hosts), key_of(request))
    return await created(session, request, job, wait_s)


async def created(session: JobSession, request: Request, job: Job, wait_s: int | None) -> Response:
    """The response to a request that led to ``job``: 202, or 200 where it ends within ``wait_s``."""
    headers = {}
    if wait_s is not None:
        headers["Preference-Applied"] = f"wait={wait_s}"
        job = await session.wait_for_job(job.id, wait_s, request) if not job.ended else job
    headers["Location"] = session.resource.location(job.id)
    return await respond(session, job, 200 if job.ended else 202, headers)


async def read(session: JobSession, job_id: str, wait_s: float, request: Request) -> Response:
    """The job, once it has ended or after ``wait_s``."""
    return await respond(session, await session.wait_for_job(job_id, wait_s, request), 200, {})


async def cancel(session: JobSession, job_id: str) -> Response:
    """Cancel the job; raises the problem `ended` of one that has succeeded or failed."""
    await session.job(job_id)
    job = await session.cancel(job_id)
    if job.state in ("succeeded", "failed"):
        raise session.resource.ended_job(job, "there is nothing to cancel")
    return await respond(session, job, 200 if job.ended else 202, {})


async def retry(session: JobSession, job_id: str) -> Response:
    """Queue a failed or canceled job again; raises the problem `ended` of one that has succeeded."""
    before = await session.job(job_id)
    job = await session.retry(job_id) or before
    if job.ended:
        consequence = "its result is there; to compute it anew, delete it and request it again"
        raise session.resource.ended_job(job, consequence)
    return await respond(session, job, 202, {})


async def delete(session: JobSession, job_id: str) -> Response:
    """Delete the job: 204, or 202 while it has to stop first."""
    await session.check_exists(job_id)
    job = None if await session.forget(job_id) else await session.record(job_id)
    return Response(status_code=204) if job is None else await respond(session, job, 202, {})


async def respond(session: JobSession, job: Job, status: int, headers: dict[str, str]) -> Response:
    """The document of ``job``. That of one that succeeded is made once, and for all callers."""
    headers["Cache-Control"] = "no-store"
    if not job.ended:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if job.state == "succeeded":
        content = await session.backend.responses.document(session.resource, job, session.whole)
    else:
        content = (await _document(session, job)).model_dump_json().encode()
    return Response(content, status, headers, media_type="application/json")


async def _document(session: JobSession, job: Job) -> BaseModel:
    position = blocked = None
    if job.state == "queued":
        position = job.place.ahead
        if not job.place.taken:
            backend, capability = session.backend, session.resource.kind.capability(job.spec.model)
            blocked = await backend.call(catalog.obstacle, backend.redis, capability)
    return session.resource.document(job, position, blocked, await session.backend.clock.now_s())


async def follow(
    session: JobSession, job_id: str, last_event_id: str | None, last_event: str | None
) -> Response:
    """The job's server-sent events, after the one that the header or the query parameter names."""
    after = last_event_id or last_event or None
    if after is not None and not is_event_id(after):
        where = ["header", "last-event-id"] if last_event_id else ["query", "last_event_id"]
        field_error = FieldError(location=[*where], detail="not the id of an event", value=after[:200])
        raise ProblemError("invalid_request", f"{'.'.join(where)}: not the id of an event", [field_error])
    await session.job(job_id)
    try:
        subscription = await session.backend.events.follow(job_id, EVENT_KINDS, session.caller.name)
    except TooManyFollowers as error:
        # Its connection is what there is too little of.
        close = {"Connection": "close"}
        raise ProblemError("too_many_streams", f"{error}; poll, or close one", headers=close) from error
    try:
        stream = EventStream(session, job_id, after)
        first = await stream.catch_up()
    except BaseException:
        subscription.close()
        raise
    if stream.over and after is not None and not first:
        subscription.close()
        return Response(status_code=204)
    return _StreamingResponse(stream.lines(first, subscription), subscription)


class _StreamingResponse(StreamingResponse):
    """A response that closes its subscription however it ends, also where it never began.

    To HEAD it is the header alone.
    """

    def __init__(self, content: AsyncIterator[str], subscription: Subscription) -> None:
        super().__init__(content, headers=_STREAM_HEADERS, media_type="text/event-stream")
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] == "HEAD":
                start = {"type": "http.response.start", "status": self.status_code}
                await send(start | {"headers": self.raw_headers})
                await send({"type": "http.response.body", "body": b""})
            else:
                await super().__call__(scope, receive, send)
        finally:
            self._subscription.close()
