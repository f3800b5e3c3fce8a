"""`webhook` in a request, and the log of deliveries."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from service.app import create_app
from service.settings import ServiceSettings
from tests.service.auth.test_callers import As
from tests.service.conftest import Http, Player
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.webhooks import Deliveries

ASK = {"model": "digits", "layer": "layer3", "unit": 7}
URL = "https://hooks.example.org/x?y=z"
LOG = "/v1/webhooks/deliveries"


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> ServiceSettings:
    settings = ServiceSettings.from_env({"REDIS_URL": redis_url, "PROXYGRAD_HOME": str(tmp_path)})
    secret = f"whsec_{base64.b64encode(bytes(32)).decode()}"
    return settings.model_copy(
        update={"webhook_hosts": ("hooks.example.org", "*.lab.example"), "webhook_secret": secret}
    )


def job_id(http: Http | As, **changes: Any) -> str:
    answer = http("POST", "/v1/visualizations", json={**ASK, "webhook": URL, **changes})
    assert answer.status_code in (200, 202), answer.text
    return str(answer.json()["id"])


def log(http: Http | As, query: str = "") -> list[dict[str, Any]]:
    answer = http.get(f"{LOG}{query}")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["deliveries"])


def test_the_end_is_in_the_log(served: Http, player: Player) -> None:
    asked = job_id(served)
    assert log(served) == []
    player.succeed(asked)
    (entry,) = log(served)
    assert (entry["type"], entry["url"], entry["state"]) == ("visualization.succeeded", URL, "pending")
    assert entry["links"]["subject"] == f"/v1/visualizations/{asked}"
    assert (entry["attempts"], entry["last_status"], entry["last_attempt_at"]) == (0, None, None)
    assert entry["next_attempt_at"] == entry["created_at"]
    assert served.get(entry["links"]["self"]).json() == entry


def test_the_url_is_no_part_of_the_id_and_of_no_answer(served: Http) -> None:
    plain = served.ask(json=ASK).json()
    asked = served.ask(json={**ASK, "webhook": URL})
    assert asked.json()["id"] == plain["id"]
    assert "hooks.example.org" not in asked.text


def test_an_answer_that_is_there_is_told_at_once(served: Http, player: Player) -> None:
    asked = job_id(served, webhook=None)
    player.succeed(asked)
    assert log(served) == []
    for _ in range(2):
        assert job_id(served) == asked
    assert [entry["type"] for entry in log(served)] == ["visualization.succeeded"]
    player.forget(asked)
    job_id(served, webhook="https://a.lab.example/")
    assert [entry["url"] for entry in log(served)] == ["https://a.lab.example/", URL]


@pytest.mark.parametrize("path", ["/v1/visualizations", "/v1/batches"])
def test_other_hosts_are_refused_with_those_that_are_valid(served: Http, path: str) -> None:
    body = {"model": "digits", "layer": "layer3", "webhook": "https://169.254.169.254/latest"}
    answer = served("POST", path, json={**body, **({"unit": 1} if "vis" in path else {})})
    assert answer.status_code == 422
    assert answer.json()["code"] == "webhook_refused"
    assert answer.json()["errors"][0]["choices"] == ["hooks.example.org", "*.lab.example"]


def test_without_an_operator_s_list_every_url_is_refused(
    settings: ServiceSettings, redis: redis_client.Redis, info: Any
) -> None:
    http = Http(create_app(settings.model_copy(update={"webhook_hosts": ()})))
    catalog.publish(redis, "worker-1", [ServedModel(name="digits", info=info)], ttl_s=60)
    answer = http.ask(json={**ASK, "webhook": URL})
    assert (answer.status_code, answer.json()["code"]) == (422, "webhook_refused")
    assert "PROXYGRAD_WEBHOOK_HOSTS" in answer.json()["detail"]


@pytest.mark.parametrize("webhook", ["", 7, ["https://hooks.example.org/"], "x" * 2001])
def test_what_is_no_url_is_refused(served: Http, webhook: Any) -> None:
    assert served.ask(json={**ASK, "webhook": webhook}).status_code == 422


def test_more_urls_than_one_caller_may_have_told_are_refused(served: Http) -> None:
    for number in range(16):
        job_id(served, webhook=f"{URL}{number}")
    answer = served.ask(json={**ASK, "webhook": f"{URL}16"})
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_webhooks")


def test_pages_and_filters(served: Http, player: Player, redis: redis_client.Redis) -> None:
    asked = [job_id(served, unit=unit) for unit in range(3)]
    for each in asked:
        player.succeed(each)
    first = served.get(f"{LOG}?limit=2").json()
    second = served.get(first["links"]["next"]).json()
    found = [entry["links"]["subject"][-32:] for entry in first["deliveries"] + second["deliveries"]]
    assert found == asked[::-1]
    assert [entry["links"]["subject"][-32:] for entry in log(served, f"?visualization={asked[1]}")] == [
        asked[1]
    ]
    (claimed,) = Deliveries(redis).claim(1, 1, 60, {})
    Deliveries(redis).settle(claimed, "exhausted", 500, None)
    (entry,) = log(served, "?state=exhausted&state=gone")
    assert (entry["id"], entry["last_status"], entry["next_attempt_at"]) == (claimed.id, 500, None)
    assert log(served, f"?batch={asked[1]}") == log(served, "?state=delivered") == []
    assert served.get(f"{LOG}?state=lost").status_code == 422
    assert served.get(f"{LOG}?cursor=x").status_code == 422


@pytest.mark.parametrize("kind", ["visualization", "batch"])
@pytest.mark.parametrize("value", ["-559", "", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n"])
def test_a_filter_by_what_is_no_id_is_refused(served: Http, kind: str, value: str) -> None:
    answer = served.get(LOG, params={kind: ["0" * 32, value]})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    (field_error,) = answer.json()["errors"]
    assert (field_error["location"], field_error["value"]) == (["query", kind, 1], value)
    assert "'^[0-9a-f]{32}$'" in field_error["detail"]


@pytest.mark.parametrize("kind", ["visualization", "batch"])
def test_a_filter_takes_so_many_values(served: Http, kind: str) -> None:
    ids = [f"{number:032x}" for number in range(51)]
    assert served.get(LOG, params={kind: ids[:50]}).status_code == 200
    (field_error,) = served.get(LOG, params={kind: ids}).json()["errors"]
    assert (field_error["location"], field_error["detail"]) == (
        ["query", kind],
        "should have at most 50 items, not 51",
    )


def test_one_that_is_exhausted_can_be_tried_again(
    served: Http, player: Player, redis: redis_client.Redis
) -> None:
    player.succeed(job_id(served))
    (claimed,) = Deliveries(redis).claim(1, 1, 60, {})
    Deliveries(redis).settle(claimed, "exhausted", None, "no connection")
    (entry,) = log(served)
    assert entry["last_error"] == "no connection"
    answer = served("POST", entry["links"]["retry"])
    assert answer.status_code == 202
    assert (answer.json()["state"], answer.json()["attempts"]) == ("pending", 1)
    assert answer.json()["next_attempt_at"] is not None
    assert len(Deliveries(redis).claim(1, 1, 60, {})) == 1


def test_what_is_not_there_is_said(served: Http) -> None:
    for method, path in (("GET", ""), ("POST", "/retry")):
        answer = served(method, f"{LOG}/{'0' * 32}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_delivery")
    assert served.get(f"{LOG}/x").json()["code"] == "unknown_delivery"


def test_each_caller_sees_its_own_and_an_operator_all(
    served: Http, redis: redis_client.Redis, player: Player
) -> None:
    one, two, reader, admin = (
        As(served, redis, *scopes)
        for scopes in (("read", "submit"), ("read", "submit"), ("read_all", "submit"), ("admin",))
    )
    asked = job_id(one)
    assert job_id(two, webhook="https://two.lab.example/") == asked
    player.succeed(asked)
    (of_one,), (of_two,) = log(one), log(two)
    assert (of_one["url"], of_two["url"]) == (URL, "https://two.lab.example/")
    assert log(reader) == []
    assert {entry["id"] for entry in log(admin)} == {of_one["id"], of_two["id"]}
    assert one.get(of_two["links"]["self"]).status_code == 404
    assert one("POST", of_two["links"]["retry"]).status_code == 404
    assert admin("POST", of_two["links"]["retry"]).status_code == 202


def test_a_batch_s_end_is_in_the_log_of_who_asked(served: Http) -> None:
    body = {"model": "digits", "layer": "layer3", "units": [1, 2], "webhook": URL}
    batch = served("POST", "/v1/batches", json=body).json()
    served("POST", f"/v1/batches/{batch['id']}/cancel")
    (entry,) = log(served, f"?batch={batch['id']}")
    assert entry["type"] == "batch.ended"
    assert entry["links"]["subject"] == f"/v1/batches/{batch['id']}"
