"""`/docs`: the page to read."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from service.app import routed
from service.pages.reference import page
from service.web.openapi import operations
from tests.service.conftest import Http


class Parsed(HTMLParser):
    """The ids of a page, its links, and the tags it uses; an error where they are not closed in order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self._open.append(tag)
        for name, value in attrs:
            assert not re.fullmatch("src|style|on.*", name), (tag, name)
            if name == "id":
                self.ids.append(str(value))
            if name == "href":
                self.links.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = routed().openapi()
    return found


def test_it_needs_nothing_from_another_server_and_runs_no_script(http: Http) -> None:
    response = http.get("/docs")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    parsed = Parsed(response.text)
    assert not parsed.tags & {"script", "link", "img", "iframe", "form"}
    assert {link for link in parsed.links if not link.startswith("#")} == {"openapi.json"}
    assert "url(" not in response.text


def test_its_policy_allows_its_own_style_alone(http: Http) -> None:
    response = http.get("/docs")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    style = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy


def test_every_operation_and_every_schema_has_a_place(document: dict[str, Any]) -> None:
    parsed = Parsed(page(document))
    names = {operation["operationId"] for _, _, operation in operations(document)}
    assert names | set(document["components"]["schemas"]) <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)


def test_what_is_said_is_text_and_no_markup(document: dict[str, Any]) -> None:
    hostile = "<script>alert(1)</script> & \"'`<b>`"
    changed = {**document, "info": {**document["info"], "title": hostile, "description": hostile}}
    assert "<script" not in page(changed)
    assert "<b>" not in page(changed)


@pytest.mark.parametrize("path", ["/redoc", "/docs/oauth2-redirect", "/docs/"])
def test_pages_that_load_scripts_from_elsewhere_are_not_there(http: Http, path: str) -> None:
    assert http.get(path).status_code == 404
