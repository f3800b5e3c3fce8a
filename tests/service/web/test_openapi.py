"""The OpenAPI document: whole, and of use to who writes a client."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from proxygrad.protocol.problems import MEDIA_TYPE, ProblemCode
from proxygrad.spec.settings import PRESETS
from service.app import routed
from service.problems import KINDS
from service.web import openapi
from service.web.openapi import BODIES, codes, operations
from service.web.paths import OPEN_PATHS

#: Problems that any path may have, and that no operation lists.
EVERYWHERE = {"bad_request", "not_found", "method_not_allowed", "internal_error"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = routed().openapi()
    return found


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object below ``node``, itself included."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from schemas(value)
    elif isinstance(node, list):
        for item in node:
            yield from schemas(item)


# -- for who writes a client ---------------------------------------------------------------------------------


def test_every_operation_has_a_short_name_of_its_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+){0,3}", name)] == []


def test_every_operation_has_a_tag_that_is_described_and_says_what_it_does(document: dict[str, Any]) -> None:
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    assert all(tags.values())
    for path, method, operation in operations(document):
        assert set(operation["tags"]) <= set(tags), (method, path)
        assert len(operation["tags"]) == 1, (method, path)
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)


def test_every_field_is_described(document: dict[str, Any]) -> None:
    silent = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, about in schema.get("properties", {}).items()
        if not about.get("description", "").strip()
    ]
    assert silent == [], "say what they are, with the unit: Field(description=…)"


def test_every_model_says_what_it_is(document: dict[str, Any]) -> None:
    named = document["components"]["schemas"].items()
    assert [name for name, schema in named if "enum" not in schema and not schema.get("description")] == []


def test_every_parameter_and_header_is_described(document: dict[str, Any]) -> None:
    silent = []
    for path, method, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            if not parameter.get("description"):
                silent.append(f"{method} {path}: {parameter['name']}")
        for status, response in operation["responses"].items():
            for header, about in response.get("headers", {}).items():
                if not about.get("description"):
                    silent.append(f"{method} {path} {status}: {header}")
    assert silent == []


def test_every_answer_says_what_it_is(document: dict[str, Any]) -> None:
    guessed = [
        f"{method} {path} {status}"
        for path, method, operation in operations(document)
        for status, response in operation["responses"].items()
        if response["description"] in ("", "Successful Response")
    ]
    assert guessed == []


def test_every_answer_with_a_body_has_a_schema(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            for media_type, media in response.get("content", {}).items():
                assert media.get("schema") or media.get("itemSchema"), (method, path, status, media_type)


def test_names_ending_in_a_unit_are_numbers(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        for field, about in schema.get("properties", {}).items():
            if field.endswith(("_s", "_px", "_bytes")):
                kinds = {each.get("type") for each in about.get("anyOf", [about])}
                assert kinds <= {"number", "integer", "null"}, f"{name}.{field}"
            if field.endswith("_at"):
                formats = {each.get("format") for each in about.get("anyOf", [about])}
                assert formats <= {"date-time", None}, f"{name}.{field}"


def test_no_list_of_values_stands_in_a_schema_twice(document: dict[str, Any]) -> None:
    """A client would have a type for each."""
    named = {
        tuple(schema["enum"]) for schema in document["components"]["schemas"].values() if "enum" in schema
    }
    inner = [
        tuple(node["enum"])
        for name, schema in document["components"]["schemas"].items()
        for node in schemas(schema.get("properties", {}))
        if isinstance(node.get("enum"), list)
    ]
    assert [values for values in inner if values in named or inner.count(values) > 1] == []


def test_what_a_preset_chooses_has_no_other_default(document: dict[str, Any]) -> None:
    """Generated clients send the defaults of a schema, and what is given overrides the preset."""
    chosen = {name for preset in PRESETS.values() for name in preset}
    for model in BODIES:
        fields = document["components"]["schemas"][model.__name__]["properties"]
        for name in chosen & fields.keys():
            assert "default" not in fields[name], f"{model.__name__}.{name}"
            assert "Default: that of `preset`" in fields[name]["description"]


def test_a_body_s_schema_has_no_defaults_but_says_them(document: dict[str, Any]) -> None:
    """What has a default is optional for every generator, also those that require it where it has one."""
    named = document["components"]["schemas"]
    bodies = _below(named, [model.__name__ for model in BODIES])
    for name in bodies:
        for field, about in named[name].get("properties", {}).items():
            assert "default" not in about, f"{name}.{field}"
    assert named["VisualizationRequest"]["required"] == ["model", "layer", "unit"]
    assert named["BatchRequest"]["required"] == ["model", "layer"]
    assert "required" not in named["UnitRange"]
    assert named["VisualizationRequest"]["properties"]["images"]["description"].endswith("Default: `1`.")


def test_what_is_always_answered_is_required(document: dict[str, Any]) -> None:
    named = document["components"]["schemas"]
    bodies = {model.__name__ for model in BODIES} | _below(named, [model.__name__ for model in BODIES])
    for name in _below(named, _answers(document)) - bodies:
        fields = named[name].get("properties", {})
        assert set(named[name].get("required", ())) == set(fields), name


def _answers(document: dict[str, Any]) -> list[str]:
    answers = [operation["responses"] for _, _, operation in operations(document)]
    return [node["$ref"].rpartition("/")[2] for node in schemas(answers) if "$ref" in node]


def _below(named: dict[str, Any], names: list[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [
                node["$ref"].rpartition("/")[2]
                for node in schemas(named[name])
                if isinstance(node.get("$ref"), str)
            ]
    return found


def test_the_examples_are_true(document: dict[str, Any]) -> None:
    models = {model.__name__: model for model in BODIES}
    seen = 0
    for path, method, operation in operations(document):
        contents = operation.get("requestBody", {}).get("content", {})
        for media in (each for kind, each in contents.items() if kind == "application/json"):
            model = models[media["schema"]["$ref"].rpartition("/")[2]]
            assert media["examples"], (method, path)
            for name, example in media["examples"].items():
                seen += 1
                _accepts(model, example["value"], f"{method} {path} {name}")
        for parameter in operation.get("parameters", ()):
            pattern = parameter["schema"].get("pattern")
            for value in [*parameter.get("examples", ()), *parameter["schema"].get("examples", ())]:
                assert pattern is None or re.search(pattern, value), (path, parameter["name"], value)
    assert seen >= 4


def _accepts(model: type[BaseModel], value: Any, where: str) -> None:
    try:
        model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise AssertionError(f"the example {where} is refused: {error}") from error


def test_keys_and_servers_are_declared(document: dict[str, Any]) -> None:
    assert document["info"]["license"] == {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    assert document["servers"][0]["url"] == "/"
    scheme = document["components"]["securitySchemes"]["key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, method, operation in operations(document):
        assert ("security" in operation) == (path not in OPEN_PATHS), (method, path)


def test_a_created_thing_leads_to_the_calls_about_it(document: dict[str, Any]) -> None:
    answers = document["paths"]["/v1/visualizations"]["post"]["responses"]
    for status in ("200", "202"):
        links = answers[status]["links"]
        assert links["cancel_visualization"]["parameters"] == {"visualization_id": "$response.body#/id"}
        known = {operation["operationId"] for _, _, operation in operations(document)}
        assert {link["operationId"] for link in links.values()} <= known
        assert "read_image" in links


def test_events_and_pictures_are_described(document: dict[str, Any]) -> None:
    paths = document["paths"]
    events = paths["/v1/visualizations/{visualization_id}/events"]["get"]["responses"]["200"]["content"]
    kinds = [
        each["properties"]["event"]["const"] for each in events["text/event-stream"]["itemSchema"]["oneOf"]
    ]
    assert kinds == ["state", "progress", "preview"]
    picture = paths["/v1/visualizations/{visualization_id}/images/{number}"]["get"]["responses"]["200"]
    assert set(picture["content"]) == {"image/png", "image/webp", "application/x-npy"}
    assert {"ETag", "Cache-Control"} <= set(picture["headers"])


# -- problems ------------------------------------------------------------------------------------------------


def test_every_operation_documents_its_problems(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        problems = {status: each for status, each in operation["responses"].items() if int(status) >= 400}
        assert {"408", "421", "431"} <= set(problems), (method, path)
        if path not in OPEN_PATHS:
            assert {"401", "403", "429", "503"} <= set(problems), (method, path)
        if "{" in path and "{caller}" not in path:  # of a caller that nobody knows there is nothing to cancel
            assert "404" in problems, (method, path)
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= set(problems), (method, path)


def test_every_problem_has_the_one_schema_and_lists_its_codes(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) < 400:
                assert not codes(response)
                continue
            assert list(response["content"]) == [MEDIA_TYPE], (method, path, status)
            schema = response["content"][MEDIA_TYPE]["schema"]
            assert schema == {"$ref": "#/components/schemas/ProblemDetails"}
            assert codes(response), (method, path, status)
            assert {KINDS[code].status for code in _known(codes(response))} == {int(status)}
            retry = any(KINDS[code].retry_after_s for code in _known(codes(response)))
            assert ("Retry-After" in response.get("headers", {})) == retry, (method, path, status)


def _known(found: tuple[str, ...]) -> list[ProblemCode]:
    return [code for code in get_args(ProblemCode) if code in found]


def test_every_code_is_listed_by_an_operation(document: dict[str, Any]) -> None:
    listed = {
        code
        for _, _, operation in operations(document)
        for response in operation["responses"].values()
        for code in codes(response)
    }
    assert set(get_args(ProblemCode)) - listed == EVERYWHERE
    assert all(f"`{code}`" in openapi.DESCRIPTION for code in EVERYWHERE)
