"""The OpenAPI document: the interface of this gateway, for people and for generators of clients.

FastAPI makes most of it from the routes. This module adds what it cannot know, and corrects what it guesses
wrongly: bodies that a route reads itself, keys, the responses of every route, links between operations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

from proxygrad.protocol.attributions import AttributionRequest
from proxygrad.protocol.events import EVENTS
from proxygrad.protocol.jobs import State
from proxygrad.protocol.problems import ProblemCode, ProblemDetails
from proxygrad.protocol.requests import BatchRequest, Priority, VisualizationRequest
from proxygrad.spec import LayerKind, ObjectiveKind, Role, VisualizationTemplate, settings
from proxygrad.spec.attribution import AttributionMethod, AttributionRule, ReferenceName
from proxygrad.spec.langevin import SamplerName
from proxygrad.version import __version__
from service.web.links import server
from service.web.openapi_security import describe_keys

DESCRIPTION = """\
Find out what a unit of a neural network responds to: get an image, and the activation that it achieves.

Send `POST /v1/visualizations`, then poll `links.self` until the state is `succeeded`, `failed` or `canceled`.
Requests are safe to repeat: the same one has the same id and is computed once.

Timestamps are RFC 3339 in UTC, names ending in `_s` are seconds, in `_px` pixels. Unknown fields are refused.
Every error has the same document, `ProblemDetails` (RFC 9457). Each operation lists its codes, for programs
as `x-codes`. Beside those, an unknown path is `not_found`, a method that does not apply `method_not_allowed`,
malformed HTTP `bad_request`, and a fault of the server `internal_error`."""

TAGS = (
    ("visualizations", "One unit: request, state, result and images."),
    ("attributions", "Which pixels of an image made a unit respond."),
    ("batches", "The same request for many units of a layer."),
    ("models", "The models of live workers, and their layers."),
    ("webhooks", "Deliveries of the events that are sent when a job or batch ends."),
    ("health", "Health checks, without a key."),
    ("metrics", "Metrics for Prometheus."),
)
SERVERS = (
    {"url": "/", "description": "The server that this document comes from."},
    {"url": "http://127.0.0.1:8000", "description": "Where `proxygrad serve` listens by default."},
)

#: Bodies that routes read themselves, so that what is not JSON, too large or too deep has its own problem.
BODIES: tuple[type[BaseModel], ...] = (VisualizationRequest, BatchRequest, AttributionRequest)
#: Schemas that only `problems.problem_responses` and the like name.
ANSWERS: tuple[type[BaseModel], ...] = (ProblemDetails, *EVENTS.values())

#: Sets of values that several schemas share have one name, so that clients have one type for each.
ENUMS: dict[str, Any] = {
    "State": State,
    "Priority": Priority,
    "Preset": settings.Preset,
    "Proxy": settings.Proxy,
    "SlopeRule": settings.SlopeRule,
    "Parameterization": settings.ParameterizationName,
    "Update": settings.UpdateName,
    "Gaf": settings.GafName,
    "Sampler": SamplerName,
    "AttributionMethod": AttributionMethod,
    "AttributionRule": AttributionRule,
    "ReferenceName": ReferenceName,
    "Robustness": VisualizationTemplate.model_fields["robustness"].annotation,
    "ObjectiveKind": ObjectiveKind,
    "LayerKind": LayerKind,
    "Role": Role,
    "ProblemCode": ProblemCode,
}

#: What a link gives for the second parameter of a path, such as the number of an image.
FIRST = "0"

#: FastAPI's description of an answer that has none.
_UNSAID = "Successful Response"
_GUESSED = ("HTTPValidationError", "ValidationError")
_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


def describe(app: FastAPI) -> None:
    """Let ``app`` answer `/openapi.json` with this document."""
    for route in app.routes:
        if isinstance(route, APIRoute):
            route.operation_id = route.name  # clients that are generated call their functions the same
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = complete(generate())
        return _as_reached(app.openapi_schema)

    app.openapi = openapi  # type: ignore[method-assign]


def _as_reached(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the address that the caller of this request uses, where a proxy changes it."""
    url = server()
    here = {**SERVERS[0], "url": url}
    return {**document, "servers": [here, *map(dict, SERVERS[1:])]} if url else document


def skeleton() -> dict[str, Any]:
    """The arguments of `FastAPI` that describe the service."""
    return {
        "title": "ProxyGrad Service",
        "version": __version__,
        "summary": "Feature visualization of neural network units.",
        "description": DESCRIPTION,
        "license_info": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        "servers": [dict(server) for server in SERVERS],
        # These pages load their scripts from another server, which a cluster may not reach: see `reference`.
        "docs_url": None,
        "redoc_url": None,
    }


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """The document of FastAPI with what it does not know; changes it in place."""
    schemas = document["components"]["schemas"]
    for _, _, operation in operations(document):
        # Guessed for every route with a parameter; those that can fail name `ProblemDetails`.
        if "application/json" in operation["responses"].get("422", {}).get("content", {}):
            del operation["responses"]["422"]
    for guessed in _GUESSED:
        schemas.pop(guessed, None)
    for model in ANSWERS:
        _add(schemas, model, "serialization")
    for model in BODIES:
        _add(schemas, model, "validation")
    describe_keys(document)
    for path, method, operation in operations(document):
        if method == "post" and "{" not in path:
            _link(document, path, operation)
        for each in operation["responses"].values():
            _code_list(each)
            _say_what(each, schemas)
        operation["responses"] = dict(sorted(operation["responses"].items()))
    used = {tag for _, _, operation in operations(document) for tag in operation.get("tags", ())}
    document["tags"] = [{"name": name, "description": about} for name, about in TAGS if name in used]
    _plain_titles(document)
    schemas.setdefault("JsonValue", {})["description"] = "Any JSON value."
    _require_all(document)
    for name in _below(schemas, [{"$ref": f"#/components/schemas/{model.__name__}"} for model in BODIES]):
        _leave_open(schemas, name)
    _name_enums(document)
    return document


def _name_enums(document: dict[str, Any]) -> None:
    """Let schemas and parameters refer to the values of `ENUMS`; puts the schemas into order."""
    names = {get_args(values): name for name, values in ENUMS.items()}
    schemas = _named(document["components"]["schemas"], names)
    document["paths"] = _named(document["paths"], names)
    for values, name in names.items():
        schemas[name] = {"type": "string", "enum": list(values)}
    document["components"]["schemas"] = dict(sorted(schemas.items()))


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation, one by one."""
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield path, method, methods[method]


def codes(response: dict[str, Any]) -> tuple[str, ...]:
    """The codes of problems that a response of the document may carry."""
    return tuple(response.get("x-codes", ()))


def _add(
    schemas: dict[str, Any], model: type[BaseModel], mode: Literal["validation", "serialization"]
) -> None:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode=mode)
    for name, inner in schema.pop("$defs", {}).items():
        schemas.setdefault(name, inner)
    schemas[model.__name__] = schema


def _say_what(response: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Where a route says nothing of its answer, what its model says of itself."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    if response["description"] == _UNSAID and "$ref" in schema:
        about = schemas[schema["$ref"].rpartition("/")[2]].get("description", _UNSAID)
        response["description"] = about.partition("\n\n")[0].replace("\n", " ")


def _code_list(response: dict[str, Any]) -> None:
    """The codes in the description of a problem, for programs."""
    if "application/problem+json" in response.get("content", {}):
        response["x-codes"] = re.findall(r"(?:^|; )`(\w+)`: ", response["description"])


def _link(document: dict[str, Any], path: str, operation: dict[str, Any]) -> None:
    """From what a question is answered with to the calls about it, as OpenAPI's links say it."""
    for status in ("200", "202"):
        answer = operation["responses"].get(status, {}).get("content", {}).get("application/json", {})
        name = answer.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if "id" in document["components"]["schemas"].get(name, {}).get("properties", {}):
            operation["responses"][status]["links"] = dict(_links(document, path))


def _links(document: dict[str, Any], collection: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, _, operation in operations(document):
        if path.startswith(f"{collection}/{{"):
            first, *others = re.findall(r"\{(\w+)\}", path)
            parameters = {first: "$response.body#/id"} | dict.fromkeys(others, FIRST)
            yield (
                operation["operationId"],
                {"operationId": operation["operationId"], "parameters": parameters},
            )


def _require_all(document: dict[str, Any]) -> None:
    """Every field of an answer is always there, also one that has a default where it is read."""
    schemas = document["components"]["schemas"]
    bodies = _below(schemas, [{"$ref": model.__name__} for model in BODIES])
    answers = [operation["responses"] for _, _, operation in operations(document)]
    for name in sorted(_below(schemas, answers) - bodies):
        if "properties" in schemas[name]:
            schemas[name]["required"] = list(schemas[name]["properties"])


def _below(schemas: dict[str, Any], node: Any) -> set[str]:
    """The names of the schemas that ``node`` leads to."""
    names: set[str] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()
            name = each["$ref"].rpartition("/")[2] if isinstance(each.get("$ref"), str) else None
            if name is not None and name not in names:
                names.add(name)
                waiting.append(schemas[name])
    return names


def _leave_open(schemas: dict[str, Any], name: str) -> None:
    """Say the defaults of a body in words: what has one is optional, whatever a generator makes of it.

    Some take a field with a default for one that is always there; many clients send the defaults, which
    would undo every preset.
    """
    chosen = {field for settings_of in settings.PRESETS.values() for field in settings_of}
    for field, about in schemas[name].get("properties", {}).items():
        default = about.pop("default", None)
        if default is None:
            continue
        text = json.dumps(default)
        said = f"that of `preset`, of `natural` {text}" if field in chosen else f"`{text}`"
        about["description"] += f" Default: {said}."


def _named(node: Any, names: dict[tuple[str, ...], str]) -> Any:
    """The same with a reference for each list of values that has a name."""
    if isinstance(node, list):
        return [_named(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    name = names.get(tuple(node["enum"])) if isinstance(node.get("enum"), list) else None
    if name is None:
        return {key: _named(value, names) for key, value in node.items()}
    others = {key: value for key, value in node.items() if key not in ("enum", "type")}
    return (
        {"allOf": [{"$ref": f"#/components/schemas/{name}"}], **others}
        if others
        else {"$ref": f"#/components/schemas/{name}"}
    )


def _plain_titles(node: Any) -> None:
    """Drop the titles that pydantic makes of names: they say nothing, and generators make names of them."""
    if isinstance(node, dict):
        if isinstance(node.get("title"), str) and {"type", "anyOf", "$ref"} & node.keys():
            del node["title"]
        for key, value in node.items():
            if key not in ("examples", "example", "default"):
                _plain_titles(value)
    elif isinstance(node, list):
        for item in node:
            _plain_titles(item)
