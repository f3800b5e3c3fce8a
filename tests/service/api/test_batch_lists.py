"""Lists of batches, and of the units of one."""

from __future__ import annotations

from tests.service.api.test_batches import asked
from tests.service.conftest import Http
from tests.support.batch_player import BatchPlayer


def test_units_are_listed_by_state_and_page(served: Http, worker: BatchPlayer) -> None:
    batch = asked(served)
    worker.expand()
    worker.end(batch["id"], "succeeded", *range(10))
    path = batch["links"]["visualizations"]
    page = served.get(path, params={"limit": 40}).json()
    assert [each["unit"] for each in page["visualizations"]] == list(range(40))
    rest = served.get(page["links"]["next"]).json()
    assert [each["unit"] for each in rest["visualizations"]] == list(range(40, 64))
    assert rest["links"]["next"] is None
    found = served.get(path, params={"state": ["succeeded", "failed"], "limit": 6}).json()
    assert [each["unit"] for each in found["visualizations"]] == list(range(6))
    found = served.get(found["links"]["next"]).json()
    assert [each["unit"] for each in found["visualizations"]] == list(range(6, 10))
    problem = served.get(path, params={"state": "done"}).json()
    (field_error,) = problem["errors"]
    assert (problem["code"], field_error["location"], field_error["value"]) == (
        "invalid_request",
        ["query", "state", 0],
        "done",
    )
    assert field_error["choices"] == ["waiting", "queued", "running", "succeeded", "failed", "canceled"]


def test_a_unit_that_was_not_queued_has_no_visualization_yet(served: Http) -> None:
    batch = asked(served, units=[7])
    (unit,) = served.get(batch["links"]["visualizations"]).json()["visualizations"]
    assert unit == {
        "unit": 7,
        "id": None,
        "state": "waiting",
        "achieved_activation": None,
        "problem": None,
        "links": {"visualization": None, "image": None},
    }


def test_batches_are_listed_a_page_at_a_time(served: Http) -> None:
    ids = [asked(served, units=[0, unit, 1])["id"] for unit in range(2, 7)]
    page = served.get("/v1/batches", params={"limit": 3}).json()
    assert [each["id"] for each in page["batches"]] == ids[:1:-1]
    assert page["batches"][0]["units"]["numbers"] is None
    rest = served.get(page["links"]["next"]).json()
    assert [each["id"] for each in rest["batches"]] == ids[1::-1]
    assert rest["links"]["next"] is None
    assert served.get("/v1/batches", params={"cursor": "x"}).json()["code"] == "invalid_request"


def test_batches_are_listed_by_model_layer_and_state(served: Http, worker: BatchPlayer) -> None:
    done = asked(served, units=[1, 2], layer="fc")["id"]
    worker.expand()
    worker.end(done, "succeeded", 1, 2)
    open_ids = [asked(served, units=[unit, 9])["id"] for unit in range(3)]

    def found(**query: str | list[str] | int) -> list[str]:
        listed: list[str] = []
        page = served.get("/v1/batches", params=query).json()
        while True:
            listed += [each["id"] for each in page["batches"]]
            if page["links"]["next"] is None:
                return listed
            page = served.get(page["links"]["next"]).json()

    assert found(state="succeeded") == found(layer="fc", limit=1) == [done]
    assert found(state="running", limit=2) == open_ids[::-1]
    assert found(state=["running", "succeeded"], model="digits") == [*open_ids[::-1], done]
    assert found(model="other") == found(layer="fc", state="running") == []
    problem = served.get("/v1/batches", params={"state": "queued"}).json()
    assert problem["errors"][0]["choices"] == ["running", "succeeded", "failed", "canceled"]
