"""A parameter that a route does not know is refused by name, and the valid ones are given."""

from __future__ import annotations

import pytest

from tests.service.api.test_visualizations import asked, problem_of
from tests.service.conftest import Http


@pytest.mark.parametrize(
    ("path", "location", "choices"),
    [
        ("/v1/visualizations?stat=queued", "stat", ["state"]),
        ("/v1/visualizations?state=queued&color=blue&limit=2", "color", None),
        ("/v1/models?ready=1", "ready", None),
        ("/v1/models/digits/layers?kinds=logits", "kinds", ["kind"]),
        ("/v1/batches?offset=3", "offset", None),
        ("/v1/webhooks/deliveries?status=failed", "status", ["state"]),
        ("/v1/visualizations/{id}?wait_s=3", "wait_s", ["wait"]),
        ("/v1/visualizations/{id}/events?lastEventId=1-0", "lastEventId", ["last_event_id"]),
        ("/v1/visualizations/{id}/images/0?" + "x" * 300, "x" * 200 + "…", None),
    ],
)
def test_an_unknown_name_is_refused(
    served: Http, path: str, location: str, choices: list[str] | None
) -> None:
    problem = problem_of(served.get(path.format(id=asked(served))), 422, "invalid_request")
    assert [field_error["location"] for field_error in problem["errors"]] == [["query", location]]
    if choices is not None:
        assert problem["errors"][0]["choices"] == choices
        assert f"query.{location}: unknown parameter; near names: {choices[0]}" in problem["detail"]


def test_what_asks_takes_its_settings_in_the_body_alone(served: Http) -> None:
    body = {"model": "digits", "layer": "layer3", "unit": 7}
    response = served("POST", "/v1/visualizations?steps=64", json=body)
    problem = problem_of(response, 422, "invalid_request")
    assert "there are no parameters here" in problem["detail"]
    assert served.get("/v1/visualizations").json()["visualizations"] == []


def test_known_names_pass(served: Http) -> None:
    job_id = asked(served)
    assert served.get(f"/v1/visualizations/{job_id}?wait=0").status_code == 200
    assert served.get("/v1/visualizations?state=queued&state=running&model=digits&limit=5").status_code == 200
