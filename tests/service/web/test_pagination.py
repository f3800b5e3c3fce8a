"""Cursors and the links of a page."""

from __future__ import annotations

import pytest
from fastapi import Response

from service.problems import ProblemError
from service.web.pagination import cursor_of, entry_of, page
from workers.jobs.repository import IndexEntry

ENTRY = IndexEntry(1700000000.25, "5f0c6a4b7d8e9f00112233445566778a")


def test_a_cursor_leads_back_to_its_entry() -> None:
    assert entry_of(cursor_of(ENTRY)) == ENTRY
    assert entry_of(None) is None


@pytest.mark.parametrize(
    "cursor", ["", "x", "W10", "WzEsIDJd", "5f0c6a4b", "ä", "W" * 200, "MA", "e30", "bnVsbA"]
)
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ProblemError, match="comes from no `next` link") as refused:
        entry_of(cursor)
    assert refused.value.code == "invalid_request"


def test_the_next_page_has_the_same_filters() -> None:
    response = Response()
    links = page(
        response, "/v1/things", {"state": ["a", "b"], "model": []}, limit=2, cursor="here", end=ENTRY
    )
    assert links.self == "/v1/things?state=a&state=b&limit=2&cursor=here"
    assert links.next == f"/v1/things?state=a&state=b&limit=2&cursor={cursor_of(ENTRY)}"
    assert response.headers["cache-control"] == "no-store"


def test_the_last_page_has_no_next_one() -> None:
    links = page(Response(), "/v1/things", {}, limit=2, cursor=0, end=None)
    assert (links.self, links.next) == ("/v1/things?limit=2", None)
    assert page(Response(), "/v1/things", {}, limit=2, cursor=0, end=7).next == "/v1/things?limit=2&cursor=7"
