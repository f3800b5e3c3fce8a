"""`/`: where to begin. People get the reference, programs the paths of the resources."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from proxygrad.protocol.addresses import ATTRIBUTIONS, BATCHES, DELIVERIES, MODELS, VISUALIZATIONS
from proxygrad.version import __version__
from service.web.links import link

router = APIRouter(include_in_schema=False)

_LINKS = {
    "documentation": "/docs",
    "openapi": "/openapi.json",
    "models": MODELS,
    "visualizations": VISUALIZATIONS,
    "attributions": ATTRIBUTIONS,
    "batches": BATCHES,
    "deliveries": DELIVERIES,
}


@router.get("/")
def read_index(request: Request) -> Response:
    """A browser is sent to the reference; all others get the links. Needs no key."""
    headers = {"Vary": "Accept", "Cache-Control": "no-cache"}
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("docs", 302, headers)  # relative: right behind any prefix
    links = {name: link(path) for name, path in _LINKS.items()}
    return JSONResponse({"name": "ProxyGrad Service", "version": __version__, "links": links}, 200, headers)
