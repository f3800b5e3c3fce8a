"""`/v1/visualizations/{id}/images/{n}`: the images, in the format that the caller accepts.

An image never changes, so each format of it has a strong entity tag and may be cached for good. It comes from
the store alone. Redis is read for the requesters of the job, unless the scope is `admin`, and for the reason
where there is no image.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Header, Path, Query, Request, Response

from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.problems import FieldError
from proxygrad.spec.settings import MIN_SIZE_PX
from service.api.visualizations import VisualizationId, VisualizationSession
from service.auth.callers import Caller
from service.backend.resources.session import JobSession
from service.images.conversion import ENCODER, Form, size_of
from service.problems import ProblemError, problem_responses
from service.web.conditional import Unsatisfiable, matches, requested_range
from service.web.negotiation import MEDIA_TYPES, Format, negotiated
from service.web.validation import shortened
from workers.jobs.kinds.visualization import VisualizationJob, image_name

router = APIRouter(prefix=VISUALIZATIONS, tags=["visualizations"])

#: Bounds of `width`, in pixels.
MIN_WIDTH_PX, MAX_WIDTH_PX = 32, 512
#: Longest side that `scale` makes. The smallest image fits `MAX_SCALE` times.
MAX_SCALED_PX = MAX_WIDTH_PX
MAX_SCALE = MAX_SCALED_PX // MIN_SIZE_PX
#: Caches may keep an image for a year, the longest that they are used to, without asking again.
MAX_AGE_S = 31_536_000

Number = Annotated[
    str,
    Path(
        description="Number of the image, from 0. A suffix `.png`, `.webp` or `.npy` overrides `Accept`.",
        examples=["0", "0.webp"],
        json_schema_extra={"pattern": r"^[0-9]{1,4}(\.(png|webp|npy))?$"},
    ),
]
Width = Annotated[
    int | None,
    Query(
        ge=MIN_WIDTH_PX,
        le=MAX_WIDTH_PX,
        description="Width of a smaller PNG or WebP in pixels; no image is made wider than it is.",
    ),
]

Scale = Annotated[
    int,
    Query(
        ge=1,
        le=MAX_SCALE,
        description="Enlarges a PNG or WebP: each pixel becomes a square of `scale` by `scale` pixels. The "
        f"longer side may have {MAX_SCALED_PX} px. Not together with `width`.",
    ),
]

_NUMBER = re.compile("[0-9]{1,4}")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_CONTENT = dict.fromkeys(MEDIA_TYPES.values(), _BINARY)
_HEADER_TEXTS = {
    "ETag": "Strong entity tag of the image in this format.",
    "Cache-Control": "It may be kept for a year; `private` where keys are in force.",
    "Accept-Ranges": "`bytes`: `Range` requests a part.",
    "Vary": "`Accept`, where that decided the format.",
}
IMAGE_HEADERS = {
    name: {"description": about, "schema": {"type": "string"}} for name, about in _HEADER_TEXTS.items()
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The image. NPY is float32 (channels, rows, columns) in 0 to 1; WebP is lossless.",
        "content": _CONTENT,
        "headers": IMAGE_HEADERS,
    },
    206: {"description": "The part that `Range` names (one range).", "content": _CONTENT},
    304: {"description": "Unchanged (`If-None-Match`)."},
    **problem_responses(
        *("unknown_visualization", "unreadable_record", "image_not_ready", "no_image"),
        *("not_acceptable", "range_not_satisfiable"),
        *("invalid_request", "redis_unavailable", "storage_unavailable"),
    ),
}


@router.get(
    "/{visualization_id}/images/{number}",
    summary="Read an image",
    response_class=Response,
    responses=_RESPONSES,
)
async def read_image(
    visualization_id: VisualizationId,
    number: Number,
    session: VisualizationSession,
    request: Request,
    width: Width = None,
    scale: Scale = 1,
    accept: Annotated[
        str | None, Header(description="`image/png`, `image/webp` or `application/x-npy`, with weights.")
    ] = None,
    if_none_match: Annotated[
        str | None, Header(description="Entity tags that the caller has cached, or `*`; a match returns 304.")
    ] = None,
) -> Response:
    """The stored PNG, or another format of it. The requested images come first, then the plain ones."""
    index, form = _negotiated(number, width, scale, accept)
    png = await session.artifact(visualization_id, image_name(index))
    if png is None:
        raise no_image(cast(VisualizationJob, await session.job(visualization_id)), index)
    return await deliver(session, request, png, form, if_none_match, by_accept="." not in number)


async def deliver(
    session: JobSession,
    request: Request,
    png: bytes,
    form: Form,
    if_none_match: str | None,
    *,
    by_accept: bool,
) -> Response:
    """A stored PNG in that format. ``by_accept``: the header `Accept` decided the format.

    Raises `invalid_request` for too large a scale, and `range_not_satisfiable`.
    """
    _check_scale(png, form.scale)
    digest = hashlib.sha256(png).hexdigest()
    headers = immutable(session.caller, _etag(digest, form))
    if by_accept:
        headers["Vary"] = "Accept"
    if matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    content = await session.backend.conversions(digest, png, form)
    return part(content, MEDIA_TYPES[form.format], headers, request)


def immutable(caller: Caller, etag: str) -> dict[str, str]:
    """The headers of what never changes."""
    return {
        "ETag": etag,
        "Cache-Control": f"{cache_scope(caller)}, max-age={MAX_AGE_S}, immutable",
        "Accept-Ranges": "bytes",
    }


def cache_scope(caller: Caller) -> Literal["public", "private"]:
    """The `Cache-Control` directive that says whether shared caches may keep an image."""
    return "public" if caller.anonymous else "private"


def _negotiated(number: str, width_px: int | None, scale: int, accept: str | None) -> tuple[int, Form]:
    """The number of the image, and its format. Raises `no_image`, `not_acceptable` or `invalid_request`."""
    digits, dot, suffix = number.partition(".")
    if not _NUMBER.fullmatch(digits):
        raise ProblemError("no_image", f"there is no image {shortened(number)!r}; images are numbered from 0")
    return int(digits), requested_form(suffix if dot else None, width_px, scale, accept, tuple(MEDIA_TYPES))


def requested_form(
    suffix: str | None, width_px: int | None, scale: int, accept: str | None, own: tuple[Format, ...]
) -> Form:
    """The format of an image that is there in the formats ``own``, by a suffix or else by `Accept`.

    Raises `not_acceptable` or `invalid_request`.
    """
    if width_px is not None and scale > 1:
        detail = f"width {width_px} and scale {scale} exclude each other"
        raise ProblemError(
            "invalid_request", detail, [FieldError(location=["query", "scale"], detail=detail)]
        )
    resized = width_px is not None or scale > 1
    formats: tuple[Format, ...] = ("png", "webp") if resized else own
    for form in own:
        if suffix == form and form not in formats:
            name, value = ("scale", scale) if width_px is None else ("width", width_px)
            detail = f"NPY has no {name}; valid with {name}: .png, .webp"
            field_error = FieldError(location=["query", name], detail=detail, value=value)
            raise ProblemError("invalid_request", detail, [field_error])
    accepted = (
        negotiated(accept, formats)
        if suffix is None
        else next((form for form in formats if form == suffix), None)
    )
    if accepted is None:
        raise not_available(formats, accept, suffix, "image")
    return Form(accepted, width_px, scale)


def not_available(
    formats: Iterable[Format], accept: str | None, suffix: str | None, what: str
) -> ProblemError:
    """The problem of a request for none of the formats, by a suffix of the path or else by `Accept`."""
    if suffix is not None:
        choices = [f".{each}" for each in formats]
        detail = f"the {what} is available as {', '.join(choices)}, not as {'.' + shortened(suffix)!r}"
        field_error = FieldError(location=["path"], detail="no such format", value=f".{shortened(suffix)}")
        field_error.choices = choices
        return ProblemError("not_acceptable", detail, [field_error])
    choices = [MEDIA_TYPES[each] for each in formats]
    field_error = FieldError(
        location=["header", "accept"], detail="accepts none of the formats", value=shortened(accept or "")
    )
    field_error.choices = choices
    detail = f"the {what} is available as {', '.join(choices)}; Accept has none of these"
    return ProblemError("not_acceptable", detail, [field_error], headers={"Vary": "Accept"})


def _check_scale(png: bytes, scale: int) -> None:
    """Refuse a scale that makes too large an image. Raises `invalid_request`."""
    width_px, height_px = size_of(png) if scale > 1 else (1, 1)
    most = max(1, MAX_SCALED_PX // max(width_px, height_px))
    if scale > most:
        detail = f"an image of {width_px} × {height_px} px can be enlarged {most} times at most, not {scale}"
        field_error = FieldError(
            location=["query", "scale"], detail=detail, value=scale, minimum=1, maximum=most
        )
        raise ProblemError("invalid_request", f"query.scale: {detail}", [field_error])


def _etag(digest: str, form: Form) -> str:
    if form.original:
        return f'"{digest}"'
    scaled = f" x{form.scale}" if form.scale > 1 else ""
    made = f"{digest} {form.format} {form.width_px}{scaled} {ENCODER}"
    return f'"{hashlib.sha256(made.encode()).hexdigest()}"'


def part(content: bytes, media_type: str, headers: dict[str, str], request: Request) -> Response:
    """The whole file, or the part that `Range` and `If-Range` name; to HEAD the header alone."""
    size, requested = len(content), request.headers.get("range")
    if request.method == "HEAD":
        headers["Content-Length"] = str(size)
        return Response(headers=headers, media_type=media_type)
    try:
        span = requested_range(requested, request.headers.get("if-range"), headers["ETag"], size)
    except Unsatisfiable:
        field_error = FieldError(
            location=["header", "range"], detail="beyond the end", value=requested, maximum=size - 1
        )
        raise ProblemError(
            "range_not_satisfiable",
            f"the range {requested!r} lies beyond the end of {size} bytes",
            [field_error],
            headers={"Content-Range": f"bytes */{size}"},
        ) from None
    if span is None:
        return Response(content, media_type=media_type, headers=headers)
    headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
    return Response(content[span.start : span.stop], 206, headers, media_type)


def no_image(job: VisualizationJob, number: int) -> ProblemError:
    """The problem of a request for an image that the job does not have, or not yet."""
    if not job.ended:
        return ProblemError(
            "image_not_ready", f"visualization {job.id} is {job.state}: {job.step} of {job.steps} steps"
        )
    if number < len(job.images):
        return ProblemError(
            "no_image", f"image {number} of {job.id} is gone from the store; request the visualization again"
        )
    if job.state == "succeeded":
        field_error = FieldError(location=["path", "number"], detail="no such image", value=number, minimum=0)
        field_error.maximum = len(job.images) - 1
        return ProblemError("no_image", f"there is no image {number}; valid: {_valid(job)}", [field_error])
    reason = f": {job.problem.detail}" if job.problem else ""
    return ProblemError("no_image", f"visualization {job.id} {job.state}, so it has no image{reason}")


def _valid(job: VisualizationJob) -> str:
    """The numbers of its images, in words."""
    if not job.spec.compare:
        return _numbers(0, len(job.images))
    count = job.spec.images
    return f"{_numbers(0, count)}, and {_numbers(count, len(job.images))} of plain ascent"


def _numbers(start: int, stop: int) -> str:
    return str(start) if stop == start + 1 else f"{start} to {stop - 1}"
