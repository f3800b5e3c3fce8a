"""`/`: a page for people, links for programs."""

from __future__ import annotations

from tests.service.conftest import Http


def test_a_program_gets_links_that_lead_somewhere(served: Http) -> None:
    index = served.get("/").json()
    assert index["name"] == "ProxyGrad Service"
    assert {name: served.get(path).status_code for name, path in index["links"].items()} == dict.fromkeys(
        index["links"], 200
    )


def test_a_browser_is_sent_to_the_reference(served: Http) -> None:
    sent = served.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (sent.status_code, sent.headers["location"]) == (302, "docs")
