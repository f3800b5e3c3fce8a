"""`/v1/attributions/{id}/images/{name}` and `/contributions`: the files of an attribution."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, cast, get_args

from fastapi import APIRouter, Header, Path, Request, Response

from proxygrad.protocol.addresses import ATTRIBUTIONS
from proxygrad.protocol.attributions import AttributionImage
from service.api.attributions.lifecycle import AttributionId, AttributionSession
from service.api.images import (
    IMAGE_HEADERS,
    Scale,
    Width,
    deliver,
    immutable,
    part,
    requested_form,
)
from service.backend.resources.session import JobSession
from service.problems import ProblemError, problem_responses
from service.web.conditional import matches
from service.web.negotiation import MEDIA_TYPES
from service.web.validation import shortened
from workers.jobs.kinds.attribution import CONTRIBUTIONS, AttributionJob

router = APIRouter(prefix=ATTRIBUTIONS, tags=["attributions"])

NAMES: tuple[str, ...] = get_args(AttributionImage)

ImageName = Annotated[
    str,
    Path(
        description="`heatmap` or `overlay`. A suffix `.png` or `.webp` overrides `Accept`.",
        examples=["heatmap", "overlay.webp"],
        json_schema_extra={"pattern": r"^(heatmap|overlay)(\.(png|webp))?$"},
    ),
]
IfNoneMatch = Annotated[
    str | None, Header(description="Entity tags that the caller has cached, or `*`; a match returns 304.")
]

_BINARY = {"schema": {"type": "string", "format": "binary"}}


def _responses(description: str, *media_types: str) -> dict[int | str, dict[str, Any]]:
    content = dict.fromkeys(media_types, _BINARY)
    return {
        200: {"description": description, "content": content, "headers": IMAGE_HEADERS},
        206: {"description": "The part that `Range` names (one range).", "content": content},
        304: {"description": "Unchanged (`If-None-Match`)."},
        **problem_responses(
            *("unknown_attribution", "unreadable_record", "image_not_ready", "no_image"),
            *("not_acceptable", "range_not_satisfiable"),
            *("invalid_request", "redis_unavailable", "storage_unavailable"),
        ),
    }


@router.get(
    "/{attribution_id}/images/{name}",
    summary="Read a heat map or overlay",
    response_class=Response,
    responses=_responses("The image, RGB; WebP is lossless.", MEDIA_TYPES["png"], MEDIA_TYPES["webp"]),
)
async def read_attribution_image(
    attribution_id: AttributionId,
    name: ImageName,
    session: AttributionSession,
    request: Request,
    width: Width = None,
    scale: Scale = 1,
    accept: Annotated[str | None, Header(description="`image/png` or `image/webp`, with weights.")] = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Red adds to the unit's response and blue takes away, by the sum over channels; white is 0."""
    stem, dot, suffix = name.partition(".")
    if stem not in NAMES:
        raise ProblemError("no_image", f"there is no image {shortened(name)!r}; valid: {', '.join(NAMES)}")
    form = requested_form(suffix if dot else None, width, scale, accept, ("png", "webp"))
    png = await _file(session, attribution_id, f"{stem}.png")
    return await deliver(session, request, png, form, if_none_match, by_accept=not dot)


@router.get(
    "/{attribution_id}/contributions",
    summary="Read the contributions",
    response_class=Response,
    responses=_responses("NPY, float32 (channels, rows, columns).", MEDIA_TYPES["npy"]),
)
async def read_contributions(
    attribution_id: AttributionId,
    session: AttributionSession,
    request: Request,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """How much each number of the picture, or of the layer `at`, adds to the difference of the objective."""
    npy = await _file(session, attribution_id, CONTRIBUTIONS)
    headers = immutable(session.caller, f'"{hashlib.sha256(npy).hexdigest()}"')
    if matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return part(npy, MEDIA_TYPES["npy"], headers, request)


async def _file(session: JobSession, job_id: str, name: str) -> bytes:
    """Raises `image_not_ready` or `no_image`."""
    data = await session.artifact(job_id, name)
    if data is not None:
        return data
    job = cast(AttributionJob, await session.job(job_id))
    if not job.ended:
        raise ProblemError("image_not_ready", f"attribution {job.id} is {job.state}")
    if job.state == "succeeded":
        raise ProblemError(
            "no_image", f"{name} of {job.id} is gone from the store; request the attribution again"
        )
    reason = f": {job.problem.detail}" if job.problem else ""
    raise ProblemError("no_image", f"attribution {job.id} {job.state}, so it has no {name}{reason}")
