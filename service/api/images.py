"""`/v1/visualizations/{id}/images/{n}`: the pictures, in the form that the caller wants.

A picture never changes, so every form of it has a strong entity tag and may be kept for good. It comes from
the store alone. Redis is asked whether a caller with a key has asked for it, unless the scope is `admin`; and
why there is no picture, where there is none.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Path, Query, Request, Response

from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.problems import FieldError
from service.api.visualizations import JobId
from service.backend.gateway import Gateway, GatewayDep
from service.images.conversion import ENCODER, Form
from service.problems import ProblemError, problem_responses
from service.web.conditional import Unsatisfiable, matches, wanted_range
from service.web.negotiation import MEDIA_TYPES, Format, negotiated
from workers.jobs.repository import Job

router = APIRouter(prefix=VISUALIZATIONS, tags=["visualizations"])

#: Bounds of `width`, in pixels.
MIN_WIDTH_PX, MAX_WIDTH_PX = 32, 512
#: An image may be kept for a year, the longest that caches are used to, without being asked for again.
KEEP_S = 31_536_000

Number = Annotated[
    str,
    Path(
        pattern=r"^[0-9]{1,4}(\.(png|webp|npy))?$",
        description="Counted from 0; `.png`, `.webp` or `.npy` after it counts before `Accept`.",
        examples=["0", "0.webp"],
    ),
]
Width = Annotated[
    int | None,
    Query(
        ge=MIN_WIDTH_PX,
        le=MAX_WIDTH_PX,
        description="Pixels that a smaller PNG or WebP shall be wide; none is made wider than it is.",
    ),
]

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_CONTENT = dict.fromkeys(MEDIA_TYPES.values(), _BINARY)
_HEADERS = {
    "ETag": "Strong entity tag of this form of the picture.",
    "Cache-Control": "That it may be kept for a year; `private` where keys are in force.",
    "Accept-Ranges": "`bytes`: a part can be asked for with `Range`.",
    "Vary": "`Accept`, where that decided the form.",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture. NPY is float32 (channels, rows, columns) in 0 to 1; WebP is lossless.",
        "content": _CONTENT,
        "headers": {
            name: {"description": about, "schema": {"type": "string"}} for name, about in _HEADERS.items()
        },
    },
    206: {"description": "The part of it that `Range` names (one range).", "content": _CONTENT},
    304: {"description": "The caller has it already (`If-None-Match`)."},
    **problem_responses(
        *("unknown_visualization", "image_not_ready", "no_image", "not_acceptable", "range_not_satisfiable"),
        *("invalid_request", "redis_unavailable", "storage_unavailable"),
    ),
}


@router.head("/{job_id}/images/{number}", include_in_schema=False)
@router.get("/{job_id}/images/{number}", summary="A picture", response_class=Response, responses=_RESPONSES)
async def read_image(
    job_id: JobId,
    number: Number,
    gateway: GatewayDep,
    request: Request,
    width: Width = None,
    accept: Annotated[
        str | None, Header(description="`image/png`, `image/webp` or `application/x-npy`, with weights.")
    ] = None,
    if_none_match: Annotated[
        str | None, Header(description="Entity tags that the caller has, or `*`: answered with 304.")
    ] = None,
) -> Response:
    """The stored PNG, or another form of it: those asked for first, then the plain ones to compare with."""
    index, form = _wanted(number, width, accept)
    png = await gateway.image(job_id, index)
    if png is None:
        raise _no_image(await gateway.job(job_id), index)
    digest = hashlib.sha256(png).hexdigest()
    etag = _etag(digest, form)
    headers = {
        "ETag": etag,
        "Cache-Control": f"{sharing(gateway)}, max-age={KEEP_S}, immutable",
        "Accept-Ranges": "bytes",
    }
    if "." not in number:
        headers["Vary"] = "Accept"
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    content = png
    if not form.original:
        async with gateway.converting:
            content = await to_thread.run_sync(gateway.conversions, digest, png, form)
    if request.method == "HEAD":
        headers["Content-Length"] = str(len(content))
        return Response(headers=headers, media_type=MEDIA_TYPES[form.format])
    return _part(content, form, headers, request)


def sharing(gateway: Gateway) -> Literal["public", "private"]:
    """Whether caches between here and the caller may hand a picture to others."""
    return "public" if gateway.caller.anonymous else "private"


def _wanted(number: str, width_px: int | None, accept: str | None) -> tuple[int, Form]:
    """Which picture, and in which form. Refuses with `not_acceptable`, or a width of an array."""
    index, _, suffix = number.partition(".")
    formats: tuple[Format, ...] = ("png", "webp") if width_px is not None else tuple(MEDIA_TYPES)
    if suffix:
        if suffix not in formats:
            flaw = FieldError(
                location=["query", "width"], detail="only PNG and WebP have one", value=width_px
            )
            said = "an array is not made smaller; valid with width: .png, .webp"
            raise ProblemError("invalid_request", said, [flaw])
        return int(index), Form(suffix, width_px)
    found = negotiated(accept, formats)
    if found is None:
        choices = [MEDIA_TYPES[each] for each in formats]
        flaw = FieldError(
            location=["header", "accept"], detail="takes none of them", value=(accept or "")[:200]
        )
        flaw.choices = choices
        said = f"the picture is to be had as {', '.join(choices)}, and Accept takes none of them"
        raise ProblemError("not_acceptable", said, [flaw], headers={"Vary": "Accept"})
    return int(index), Form(found, width_px)


def _etag(digest: str, form: Form) -> str:
    if form.original:
        return f'"{digest}"'
    made = f"{digest} {form.format} {form.width_px} {ENCODER}"
    return f'"{hashlib.sha256(made.encode()).hexdigest()}"'


def _part(content: bytes, form: Form, headers: dict[str, str], request: Request) -> Response:
    """All of it, or what `Range` and `If-Range` name."""
    size, media_type, wanted = len(content), MEDIA_TYPES[form.format], request.headers.get("range")
    try:
        span = wanted_range(wanted, request.headers.get("if-range"), headers["ETag"], size)
    except Unsatisfiable:
        flaw = FieldError(
            location=["header", "range"], detail="beyond the end", value=wanted, maximum=size - 1
        )
        raise ProblemError(
            "range_not_satisfiable",
            f"the range {wanted!r} lies beyond the end of {size} bytes",
            [flaw],
            headers={"Content-Range": f"bytes */{size}"},
        ) from None
    if span is None:
        return Response(content, media_type=media_type, headers=headers)
    headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
    return Response(content[span.start : span.stop], 206, headers, media_type)


def _no_image(job: Job, number: int) -> ProblemError:
    if not job.ended:
        return ProblemError(
            "image_not_ready", f"visualization {job.id} is {job.state}: {job.step} of {job.steps} steps"
        )
    if number < len(job.images):
        return ProblemError(
            "no_image", f"image {number} of {job.id} is gone from the store; submit the question again"
        )
    if job.state == "succeeded":
        flaw = FieldError(location=["path", "number"], detail="no such image", value=number, minimum=0)
        flaw.maximum = len(job.images) - 1
        return ProblemError("no_image", f"there is no image {number}; valid: {_valid(job)}", [flaw])
    reason = f": {job.problem.detail}" if job.problem else ""
    return ProblemError("no_image", f"visualization {job.id} {job.state}, so it has no image{reason}")


def _valid(job: Job) -> str:
    """The numbers of its pictures, in words."""
    asked = job.spec.images if job.spec.compare else len(job.images)
    said = _numbers(0, asked)
    return f"{said}, and {_numbers(asked, len(job.images))} of plain ascent" if job.spec.compare else said


def _numbers(start: int, stop: int) -> str:
    return str(start) if stop == start + 1 else f"{start} to {stop - 1}"
