"""Attributions of several callers, of repeated requests, and within the operator's limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis as redis_client

from service.app import create_app
from service.auth import key_ring
from service.settings import ServiceSettings
from tests.service.api.test_attributions import QUESTION, drawn, sent
from tests.service.api.test_callers import key
from tests.service.api.test_visualizations import QUESTION as VISUALIZATION
from tests.service.api.test_visualizations import problem_of
from tests.service.conftest import Http, Player
from workers.broker.rq_names import QUEUE_KEY

PATH = "/v1/attributions"


@pytest.fixture(autouse=True)
def _keys_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 0.0)


def form(http: Http, headers: dict[str, str], image: bytes | None = None, **changes: Any) -> Any:
    body = json.dumps(QUESTION | changes)
    files = {"image": ("picture", drawn() if image is None else image)}
    return http("POST", PATH, files=files, data={"attribution": body}, headers=headers)


def test_a_visualization_that_a_caller_may_not_see_is_unknown(
    served: Http, redis: redis_client.Redis, player: Player
) -> None:
    (_, own), (_, stranger), (_, admin), (_, auditor) = (
        key(redis),
        key(redis),
        key(redis, "admin"),
        key(redis, "read_all", "submit"),
    )
    job_id = served.ask(json=VISUALIZATION, headers=own).json()["id"]
    body = QUESTION | {"image": {"visualization": job_id}}
    problem_of(served("POST", PATH, json=body, headers=stranger), 404, "unknown_visualization")
    player.succeed(job_id)
    refused = served("POST", PATH, json=body, headers=stranger)
    unknown = QUESTION | {"image": {"visualization": "0" * 32}}
    absent = served("POST", PATH, json=unknown, headers=stranger)
    assert (
        problem_of(refused, 404, "unknown_visualization")["detail"].replace(job_id, "0" * 32)
        == (problem_of(absent, 404, "unknown_visualization")["detail"])
    )
    assert redis.llen(QUEUE_KEY) == 1
    ids = {served("POST", PATH, json=body, headers=each).json()["id"] for each in (own, admin, auditor)}
    assert len(ids) == 1


def test_an_attribution_of_another_caller_is_unknown_until_it_is_requested_too(
    served: Http, redis: redis_client.Redis
) -> None:
    (_, own), (_, stranger) = key(redis), key(redis)
    path = form(served, own).json()["links"]["self"]
    for method, place in [
        *[("GET", place) for place in ("", "/events", "/contributions", "/images/heatmap")],
        *[("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")],
    ]:
        problem_of(served(method, path + place, headers=stranger), 404, "unknown_attribution")
    assert served.get(PATH, headers=stranger).json()["attributions"] == []
    assert form(served, stranger).json()["links"]["self"] == path
    assert served.get(path, headers=stranger).status_code == 200
    served("POST", f"{path}/cancel", headers=stranger)
    assert served.get(path, headers=own).json()["state"] == "queued", "the other still wants it"
    problem_of(form(served, {}), 401, "unauthorized")
    problem_of(form(served, key(redis, "read")[1]), 403, "forbidden")


def test_a_key_that_is_used_again_stands_for_the_same_request(
    served: Http, redis: redis_client.Redis
) -> None:
    headers = {"Idempotency-Key": "one"}
    first, again = form(served, headers), form(served, headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    for image, changes in ((drawn(0), {}), (drawn(), {"unit": 4}), (drawn(), {"rule": "rescale"})):
        problem_of(form(served, headers, image, **changes), 409, "idempotency_key_reused")
    assert redis.llen(QUEUE_KEY) == 1
    problem_of(form(served, {"Idempotency-Key": "two"}, b"none"), 422, "invalid_image")
    assert form(served, {"Idempotency-Key": "two"}).status_code == 202, "a refused one leaves its key free"


@pytest.mark.parametrize(
    ("environ", "image", "changes", "code", "said"),
    [
        (
            {"PROXYGRAD_MAX_UPLOAD_PIXELS": "1024"},
            drawn(size=(33, 32)),
            {},
            "limit_exceeded",
            "PROXYGRAD_MAX_UPLOAD_PIXELS",
        ),
        (
            {"PROXYGRAD_MAX_SIZE_PX": "64"},
            drawn(),
            {"size_px": 65},
            "limit_exceeded",
            "PROXYGRAD_MAX_SIZE_PX",
        ),
        (
            {"PROXYGRAD_MAX_COST": "0.01"},
            drawn(),
            {"method": "integrated_gradients", "points": 10},
            "cost_too_high",
            "PROXYGRAD_MAX_COST",
        ),
        (
            {"PROXYGRAD_MAX_UPLOAD_BYTES": "65536", "PROXYGRAD_MAX_BODY_BYTES": "1024"},
            drawn() + bytes(66_000),
            {},
            "body_too_large",
            "PROXYGRAD_MAX_UPLOAD_BYTES",
        ),
        (
            {"PROXYGRAD_MAX_UPLOAD_BYTES": "65536", "PROXYGRAD_MAX_BODY_BYTES": "1024"},
            drawn(),
            {"layer": "l" * 1024},
            "body_too_large",
            "PROXYGRAD_MAX_BODY_BYTES",
        ),
    ],
    ids=["pixels", "size", "cost", "upload", "document"],
)
def test_the_operators_limit_is_named(
    served: Http,
    redis_url: str,
    settings: ServiceSettings,
    environ: dict[str, str],
    image: bytes,
    changes: dict[str, Any],
    code: str,
    said: str,
) -> None:
    base = {"REDIS_URL": redis_url, "PROXYGRAD_HOME": str(settings.home)}
    app = create_app(ServiceSettings.from_env(base | environ))
    try:
        http = Http(app)
        assert sent(http, drawn()).status_code == 202, "the default is within it"
        response = sent(http, image, **changes)
        problem_of(response, 413 if code == "body_too_large" else 422, code)
        assert said in response.json()["detail"]
    finally:
        app.state.backend.redis.close()


def test_a_large_upload_is_taken_nowhere_else(served: Http) -> None:
    """The limit of 64 KB holds for JSON, for other paths and for other methods."""
    body, form_type = bytes(70_000), {"content-type": "multipart/form-data; boundary=x"}
    for path, headers in (
        (PATH, {"content-type": "application/json"}),
        ("/v1/visualizations", form_type),
        (f"{PATH}/{'0' * 32}/cancel", form_type),
    ):
        problem_of(served("POST", path, content=body, headers=headers), 413, "body_too_large")


def test_only_who_may_submit_sends_pictures(served: Http, redis: redis_client.Redis) -> None:
    (_, reader), (_, owner) = key(redis, "read"), key(redis)
    problem_of(form(served, reader), 403, "forbidden")
    assert served.get(PATH, headers=owner).json()["attributions"] == []
