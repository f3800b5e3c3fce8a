"""`/docs`: the OpenAPI document as one page to read. No script, and nothing from another server."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --link: #06c; }
@media (prefers-color-scheme: dark) { :root { --link: #6af; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem 1.5rem 4rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; text-transform: capitalize; }
h3 { margin: 0; font-size: 1rem; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
code, pre { font: 0.88em/1.5 ui-monospace, monospace; } code { overflow-wrap: anywhere; }
pre { background: var(--soft); overflow-x: auto; padding: 0.6rem 0.8rem; margin: 0.4rem 0; }
section { border: 1px solid var(--line); border-radius: 4px; margin: 1rem 0; padding: 0.8rem 1rem; }
section p { margin: 0.4rem 0; } h4 { margin: 0.8rem 0 0.2rem; font-size: 0.9rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
td { border-top: 1px solid var(--line); padding: 0.3rem 0.5rem 0.3rem 0; vertical-align: top; }
td:first-child { width: 13rem; } td:nth-child(2):not(:last-child) { width: 16rem; }
small { opacity: 0.75; } .method { display: inline-block; min-width: 4.2rem; font-weight: 700; }
ul { padding-left: 1.2rem; } nav ul { list-style: none; padding: 0; margin: 0.2rem 0; }
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_METHODS = ("get", "post", "put", "patch", "delete")
#: What the type of a field says beside its name, in the words of JSON Schema and in ours.
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "{}",
}


@router.get("/docs")
def reference(request: Request) -> Response:
    """Every operation and every field. Needs no key."""
    return HTMLResponse(page(request.app.openapi()), headers=HEADERS)


def page(document: dict[str, Any]) -> str:
    """The document as HTML."""
    info = document["info"]
    tags = [(tag["name"], tag.get("description", "")) for tag in document.get("tags", ())]
    groups = [(name, about, _of_tag(document, name)) for name, about in tags]
    contents = "".join(_contents(name, operations) for name, _, operations in groups)
    calls = "".join(
        f'<h2 id="{escape(name)}">{escape(name)}</h2>{_prose(about)}'
        + "".join(_operation(*each) for each in operations)
        for name, about, operations in groups
    )
    schemas = "".join(
        _schema(name, schema) for name, schema in document.get("components", {}).get("schemas", {}).items()
    )
    title = escape(info["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>"
        f"<small>Version {escape(info['version'])} · {escape(info.get('license', {}).get('name', ''))} · "
        '<a href="openapi.json">openapi.json</a></small>'
        f"{_prose(info.get('description', ''))}<nav>{contents}"
        '<p><a href="#schemas">Schemas</a></p></nav>'
        f'{calls}<h2 id="schemas">Schemas</h2>{schemas}</body></html>'
    )


def _of_tag(document: dict[str, Any], tag: str) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method in _METHODS
        if (operation := methods.get(method)) and tag in operation.get("tags", ())
    ]


def _contents(tag: str, operations: Iterable[tuple[str, str, dict[str, Any]]]) -> str:
    rows = "".join(
        f'<li><a href="#{escape(operation["operationId"])}">{_call(method, path)}</a> '
        f"{escape(operation.get('summary', ''))}</li>"
        for path, method, operation in operations
    )
    return f'<p><a href="#{escape(tag)}">{escape(tag.capitalize())}</a></p><ul>{rows}</ul>'


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parameters = [
        (
            f"<code>{escape(each['name'])}</code><br><small>{escape(each['in'])}"
            f"{', required' if each.get('required') else ''}</small>",
            _type(each.get("schema", {})),
            _prose(each.get("description", "")),
        )
        for each in operation.get("parameters", ())
    ]
    responses = [
        (f"<code>{escape(status)}</code>", _contained(each), _prose(each.get("description", "")))
        for status, each in operation["responses"].items()
    ]
    return (
        f'<section id="{escape(operation["operationId"])}"><h3>{_call(method, path)}</h3>'
        f"<p>{_inline(operation.get('summary', ''))}</p>"
        f"{_prose(operation.get('description', ''))}{_table('Parameters', parameters)}"
        f"{_body(operation.get('requestBody'))}{_table('Answers', responses)}</section>"
    )


def _call(method: str, path: str) -> str:
    return f'<code><span class="method">{method.upper()}</span>{escape(path)}</code>'


def _body(body: dict[str, Any] | None) -> str:
    if body is None:
        return ""
    text = f"<h4>Body</h4><p>{_contained(body)}</p>"
    for media in body["content"].values():
        for example in media.get("examples", {}).values():
            text = json.dumps(example["value"], ensure_ascii=False)
            text += f"<small>{_inline(example.get('summary', ''))}</small><pre>{escape(text)}</pre>"
    return text


def _contained(message: dict[str, Any]) -> str:
    """The media types of a body or an answer, with what they hold."""
    return "<br>".join(
        f"<code>{escape(media_type)}</code> {_type(media.get('schema', {}))}"
        for media_type, media in message.get("content", {}).items()
    )


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (
            f"<code>{escape(field)}</code>{'<br><small>required</small>' if field in required else ''}",
            _type(about) + _default(about),
            _prose(about.get("description", "")),
        )
        for field, about in schema.get("properties", {}).items()
    ]
    about = _prose(schema.get("description", ""))
    whole = "" if rows else f"<p>{_type(schema)}</p>"
    return f'<section id="{escape(name)}"><h3>{escape(name)}</h3>{about}{whole}{_table("", rows)}</section>'


def _default(schema: dict[str, Any]) -> str:
    if schema.get("default") is None:
        return ""
    text = json.dumps(schema["default"], ensure_ascii=False)
    return f"<br><small>default <code>{escape(text)}</code></small>"


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words, with links to those that have a name."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " · ".join(f"<code>{escape(json.dumps(value))}</code>" for value in values)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(map(_type, schema[several]))
    text = escape(str(schema.get("format") or schema.get("type", "any")))
    if "prefixItems" in schema:
        text += f" of ({', '.join(map(_type, schema['prefixItems']))})"
    elif "items" in schema:
        text += f" of {_type(schema['items'])}"
    elif isinstance(schema.get("additionalProperties"), dict):
        text += f" of {_type(schema['additionalProperties'])}"
    bounds = [form.format(schema[key]) for key, form in _BOUNDS.items() if key in schema]
    return text + (f" <small>{escape(', '.join(bounds))}</small>" if bounds else "")


def _table(title: str, rows: list[tuple[str, str, str]]) -> str:
    if not rows:
        return ""
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (f"<h4>{title}</h4>" if title else "") + f"<table>{lines}</table>"


def _prose(text: str) -> str:
    """Paragraphs of text, with `code` where it is marked."""
    return "".join(f"<p>{_inline(part)}</p>" for part in re.split(r"\n\s*\n", text.strip()) if part)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
