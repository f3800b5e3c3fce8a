"""Several images as one: the contact sheets of a batch and of a visualization, and its animation."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, cast

from fastapi import APIRouter, Header, Query, Request, Response

from proxygrad.protocol.addresses import BATCHES, VISUALIZATIONS
from proxygrad.protocol.batches import DEFAULT_CELL_PX, MAX_CELL_PX, MAX_COLUMNS, MIN_CELL_PX, most_columns
from proxygrad.protocol.problems import FieldError
from service.api.batches import BatchId
from service.api.dependencies import SessionDep
from service.api.images import MAX_AGE_S, cache_scope, no_image, not_available
from service.api.visualizations import VisualizationId, VisualizationSession
from service.images.animation import FRAME_MS, LONGEST_FRAME_MS
from service.images.contact_sheet import SheetFormat, SheetLayout, entity_tag, layout_of
from service.images.conversion import ENCODER
from service.problems import ProblemError, problem_responses
from service.web.conditional import matches
from service.web.links import link
from service.web.negotiation import MEDIA_TYPES, negotiated
from workers.batches.batch import Unit
from workers.batches.repository import BatchRecord
from workers.jobs.kinds.visualization import VisualizationJob, image_name

router = APIRouter()

Columns = Annotated[
    int | None,
    Query(ge=1, le=MAX_COLUMNS, description="Images in a row; by default 16, or as many as there are."),
]
Width = Annotated[
    int,
    Query(
        ge=MIN_CELL_PX,
        le=MAX_CELL_PX,
        description="Width and height of each image, in pixels.",
    ),
]
PageNumber = Annotated[
    int,
    Query(
        ge=0, lt=2**31, description="Page from 0. A sheet shows at most 1,024 units, fewer if they are large."
    ),
]

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_HEADERS = {
    "ETag": "Strong entity tag; it changes with every image that is added.",
    "Cache-Control": "Whether the sheet may be kept: it may once all images are there.",
    "Vary": "`Accept`, where that decided the format.",
    "Link": 'The next page, as `rel="next"`, where there is one.',
}
_FORMS: tuple[SheetFormat, ...] = ("png", "webp")
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The sheet. `Link` names the next page, where there is one.",
        "content": {MEDIA_TYPES[form]: _BINARY for form in _FORMS},
        "headers": {
            name: {"description": about, "schema": {"type": "string"}} for name, about in _HEADERS.items()
        },
    },
    304: {"description": "Unchanged (`If-None-Match`)."},
    **problem_responses(
        "unknown_batch",
        "unreadable_record",
        "not_acceptable",
        "invalid_request",
        "redis_unavailable",
        "storage_unavailable",
    ),
}

_OF_IMAGES = problem_responses(
    *("unknown_visualization", "unreadable_record", "image_not_ready", "no_image"),
    *("invalid_request", "redis_unavailable", "storage_unavailable"),
)
_CACHED = {
    name: {"description": about, "schema": {"type": "string"}}
    for name, about in {
        "ETag": "Strong entity tag.",
        "Cache-Control": "It may be kept for a year; `private` where keys are in force.",
    }.items()
}
_GRID_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The images as one.",
        "content": {MEDIA_TYPES[form]: _BINARY for form in _FORMS},
        "headers": _CACHED,
    },
    304: {"description": "Unchanged (`If-None-Match`)."},
    **_OF_IMAGES,
    **problem_responses("not_acceptable"),
}
_ANIMATION_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The animation.", "content": {MEDIA_TYPES["webp"]: _BINARY}, "headers": _CACHED},
    304: {"description": "Unchanged (`If-None-Match`)."},
    **_OF_IMAGES,
}


@router.get(f"{BATCHES}/{{batch_id}}/atlas.{{suffix}}", include_in_schema=False)
@router.get(
    f"{BATCHES}/{{batch_id}}/atlas",
    tags=["batches"],
    summary="Read the contact sheet of a batch",
    response_class=Response,
    responses=_RESPONSES,
)
async def read_batch_atlas(
    batch_id: BatchId,
    session: SessionDep,
    request: Request,
    columns: Columns = None,
    width: Width = DEFAULT_CELL_PX,
    page: PageNumber = 0,
    accept: Annotated[str | None, Header(description="`image/png` or `image/webp`, with weights.")] = None,
    if_none_match: Annotated[
        str | None, Header(description="Entity tags that the caller has cached, or `*`; a match returns 304.")
    ] = None,
) -> Response:
    """The images so far, each above its unit's number, in the order of the units.

    A gray cell waits for its image; a crossed one gets none. `.png` or `.webp` after the path counts before
    `Accept`. The entity tag changes with every image that is added.
    """
    batch = await session.batch(batch_id)
    suffix = request.path_params.get("suffix")
    form = _form(suffix, accept)
    layout = _layout(len(batch.units), columns, width)
    first = page * layout.most_cells
    numbers = batch.units[first : first + layout.most_cells]
    if not numbers:
        raise _no_page(batch, layout, page)
    units = await session.units(batch, numbers)
    tag = entity_tag(units, layout, form)
    keep = f"max-age={MAX_AGE_S}" if batch.state == "succeeded" else "no-cache"
    headers = {"ETag": tag, "Cache-Control": f"{cache_scope(session.caller)}, {keep}"}
    if suffix is None:
        headers["Vary"] = "Accept"
    if first + layout.most_cells < len(batch.units):
        following = request.url.include_query_params(page=page + 1)
        headers["Link"] = f'<{link(following.path)}?{following.query}>; rel="next"'
    if matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    sheet = await session.backend.sheets(units, layout, form, tag)
    if not sheet.whole:  # an image is gone from the store: the same units may look otherwise later
        del headers["ETag"]
        headers["Cache-Control"] = "no-store"
    return Response(sheet.content, media_type=MEDIA_TYPES[form], headers=headers)


@router.get(f"{VISUALIZATIONS}/{{visualization_id}}/grid.{{suffix}}", include_in_schema=False)
@router.get(
    f"{VISUALIZATIONS}/{{visualization_id}}/grid",
    tags=["visualizations"],
    summary="Read all images as one",
    response_class=Response,
    responses=_GRID_RESPONSES,
)
async def read_image_grid(
    visualization_id: VisualizationId,
    session: VisualizationSession,
    request: Request,
    columns: Columns = None,
    width: Width = DEFAULT_CELL_PX,
    accept: Annotated[str | None, Header(description="`image/png` or `image/webp`, with weights.")] = None,
    if_none_match: Annotated[
        str | None, Header(description="Entity tags that the caller has cached, or `*`; a match returns 304.")
    ] = None,
) -> Response:
    """Every image above its number. Of sampler `langevin` each row is a chain."""
    suffix = request.path_params.get("suffix")
    form = _form(suffix, accept)
    job = await _finished(session, visualization_id)
    own = len(job.images) // job.spec.lanes if job.spec.sampler == "langevin" else None
    layout = _layout(len(job.images), columns or own, width)
    cells = [Unit(number, job.id, "succeeded", best=number) for number in range(len(job.images))]
    tag = entity_tag(cells, layout, form)
    headers = _kept(session, tag)
    if suffix is None:
        headers["Vary"] = "Accept"
    if matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    sheet = await session.backend.sheets(cells, layout, form, tag)
    if not sheet.whole:
        raise no_image(job, 0)
    return Response(sheet.content, media_type=MEDIA_TYPES[form], headers=headers)


@router.get(f"{VISUALIZATIONS}/{{visualization_id}}/animation.webp", include_in_schema=False)
@router.get(
    f"{VISUALIZATIONS}/{{visualization_id}}/animation",
    tags=["visualizations"],
    summary="Read all images as an animation",
    response_class=Response,
    responses=_ANIMATION_RESPONSES,
)
async def read_animation(
    visualization_id: VisualizationId,
    session: VisualizationSession,
    chain: Annotated[
        int | None,
        Query(ge=0, lt=2**31, description="Of sampler `langevin`: the samples of this chain alone, from 0."),
    ] = None,
    frame_ms: Annotated[
        int, Query(ge=1, le=LONGEST_FRAME_MS, description="How long each image is shown, in milliseconds.")
    ] = FRAME_MS,
    if_none_match: Annotated[
        str | None, Header(description="Entity tags that the caller has cached, or `*`; a match returns 304.")
    ] = None,
) -> Response:
    """The images in the order of their numbers, as a lossless animated WebP that repeats."""
    job = await _finished(session, visualization_id)
    numbers = _of_chain(job, chain)
    name = f"{job.id} {','.join(map(str, numbers))} {frame_ms} {ENCODER}"
    tag = f'"{hashlib.sha256(name.encode()).hexdigest()}"'
    headers = _kept(session, tag)
    if matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    frames = [await session.artifact(job.id, image_name(number)) for number in numbers]
    if None in frames:
        raise no_image(job, numbers[frames.index(None)])
    content = await session.backend.conversions.animation(tag, cast(list[bytes], frames), frame_ms)
    return Response(content, media_type=MEDIA_TYPES["webp"], headers=headers)


async def _finished(session: VisualizationSession, job_id: str) -> VisualizationJob:
    """The job, which has images. Raises `image_not_ready` or `no_image`."""
    job = cast(VisualizationJob, await session.job(job_id))
    if job.state != "succeeded":
        raise no_image(job, 0)
    return job


def _kept(session: VisualizationSession, tag: str) -> dict[str, str]:
    scope = cache_scope(session.caller)
    return {"ETag": tag, "Cache-Control": f"{scope}, max-age={MAX_AGE_S}, immutable"}


def _of_chain(job: VisualizationJob, chain: int | None) -> list[int]:
    """Numbers of the images of one chain; of all where ``chain`` is None. Raises `invalid_request`."""
    every = range(len(job.images))
    if chain is None or job.result is None:
        return list(every)
    chains = [job.result.image(number).chain for number in every]
    if chain not in chains:
        last = max((each for each in chains if each is not None), default=None)
        valid = "it has no chains" if last is None else f"valid: 0 to {last}"
        detail = f"there is no chain {chain}; {valid}"
        field_error = FieldError(location=["query", "chain"], detail=detail, value=chain)
        raise ProblemError("invalid_request", detail, [field_error])
    return [number for number in every if chains[number] == chain]


def _form(suffix: str | None, accept: str | None) -> SheetFormat:
    """The format of the sheet. Raises `not_acceptable`."""
    accepted = negotiated(accept, _FORMS) if suffix is None else suffix
    for form in _FORMS:
        if form == accepted:
            return form
    raise not_available(_FORMS, accept, suffix, "sheet")


def _layout(count: int, columns: int | None, cell_px: int) -> SheetLayout:
    """The layout of the sheet. Raises `invalid_request` for more columns than it has room for."""
    most = most_columns(cell_px)
    if columns is not None and columns > most:
        detail = f"{columns} columns of {cell_px} px are too wide; valid with width {cell_px}: 1 to {most}"
        field_error = FieldError(
            location=["query", "columns"], detail=detail, value=columns, minimum=1, maximum=most
        )
        raise ProblemError("invalid_request", detail, [field_error])
    return layout_of(count, columns, cell_px)


def _no_page(batch: BatchRecord, layout: SheetLayout, page: int) -> ProblemError:
    last = (len(batch.units) - 1) // layout.most_cells
    detail = f"there is no page {page} of this sheet; valid: 0 to {last}"
    field_error = FieldError(location=["query", "page"], detail=detail, value=page, minimum=0, maximum=last)
    return ProblemError("invalid_request", detail, [field_error])
