"""Every code of a problem is really answered to some request.

`ASKED` has a request for each code that one request produces. What needs more, such as a Redis that is
killed, has a test elsewhere, and `ELSEWHERE` names it. A new code fails here until it is in one of the two.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import httpx
import pytest
import redis as redis_client

from proxygrad.protocol.problems import MEDIA_TYPE, ProblemCode
from service.app import create_app
from service.auth.keys import Keys
from service.problems import KINDS
from service.settings import ServiceSettings
from tests.service.conftest import Http, Player
from tests.support.batch_player import BatchPlayer

TESTS = Path(__file__).parents[1]
QUESTION = {"model": "digits", "layer": "layer3", "unit": 7}
NOBODY = "0" * 32
JSON = {"Content-Type": "application/json"}


class Scene:
    """A gateway with a worker that is played, and what a request may need before it."""

    def __init__(
        self,
        settings: ServiceSettings,
        redis: redis_client.Redis,
        player: Player,
        http: Http,
        worker: BatchPlayer,
    ) -> None:
        self.settings, self.redis, self.player, self.http = settings, redis, player, http
        self.worker = worker

    def ask(self, **changed: object) -> httpx.Response:
        return self.http.ask(json=QUESTION | changed)

    def asked(self) -> str:
        return f"/v1/visualizations/{self.ask().json()['id']}"

    def answered(self) -> str:
        path = self.asked()
        self.player.succeed(path.rpartition("/")[2])
        return path

    def limited(self, **settings: object) -> Http:
        return Http(create_app(self.settings.model_copy(update=settings)))

    def batch(self, units: object = (0, 1)) -> httpx.Response:
        body = {"model": "digits", "layer": "layer3", "units": units}
        return self.http("POST", "/v1/batches", json=body)

    def with_key(self, *scopes: str, rate_per_min: int = 600) -> dict[str, str]:
        token = Keys(self.redis).create("k", scopes, rate_per_min=rate_per_min)[1]  # type: ignore[arg-type]
        return {"Authorization": f"Bearer {token}"}


def _keyed_after_the_first(scene: Scene) -> httpx.Response:
    headers = scene.with_key("read", rate_per_min=1)
    http = scene.limited(require_keys=True)
    http.get("/v1/models", headers=headers)
    return http.get("/v1/models", headers=headers)


def _with_another_body(scene: Scene) -> httpx.Response:
    for unit in (1, 2):
        answer = scene.http.ask(json=QUESTION | {"unit": unit}, headers={"Idempotency-Key": "k"})
    return answer


def _one_too_many(scene: Scene, setting: str) -> httpx.Response:
    http = scene.limited(**{setting: 1})
    http.ask(json=QUESTION)
    return http.ask(json=QUESTION | {"unit": 8})


def _ended_batch(scene: Scene) -> httpx.Response:
    asked = scene.batch(units=[7])
    assert asked.status_code in (200, 202), asked.text
    path = asked.json()["links"]["self"]
    scene.worker.expand()
    scene.worker.end(asked.json()["id"], "succeeded")
    return scene.http("POST", f"{path}/cancel")


ASKED: dict[ProblemCode, Callable[[Scene], httpx.Response]] = {
    "invalid_json": lambda scene: scene.http.ask(content=b"{", headers=JSON),
    "json_too_deep": lambda scene: scene.http.ask(content=b"[" * 33, headers=JSON),
    "unauthorized": lambda scene: scene.limited(require_keys=True).get("/v1/models"),
    "forbidden": lambda scene: scene.http.ask(json=QUESTION, headers={"Origin": "https://example.org"}),
    "unknown_model": lambda scene: scene.ask(model="digit"),
    "unknown_layer": lambda scene: scene.ask(layer="layer9"),
    "unknown_visualization": lambda scene: scene.http.get(f"/v1/visualizations/{NOBODY}"),
    "unknown_batch": lambda scene: scene.http.get(f"/v1/batches/{NOBODY}"),
    "image_not_ready": lambda scene: scene.http.get(f"{scene.asked()}/images/0"),
    "no_image": lambda scene: scene.http.get(f"{scene.answered()}/images/99"),
    "not_found": lambda scene: scene.http.get("/v2"),
    "method_not_allowed": lambda scene: scene.http("PUT", "/v1/visualizations"),
    "not_acceptable": lambda scene: scene.http.get(
        f"{scene.answered()}/images/0", headers={"Accept": "image/gif"}
    ),
    "visualization_ended": lambda scene: scene.http("POST", f"{scene.answered()}/cancel"),
    "batch_ended": _ended_batch,
    "idempotency_key_reused": _with_another_body,
    "body_too_large": lambda scene: scene.http.ask(content=b" " * 70_000, headers=JSON),
    "unsupported_media_type": lambda scene: scene.http.ask(content=b"a=1"),
    "range_not_satisfiable": lambda scene: scene.http.get(
        f"{scene.answered()}/images/0", headers={"Range": "bytes=9999999-"}
    ),
    "invalid_request": lambda scene: scene.ask(unit=-1),
    "unit_out_of_range": lambda scene: scene.ask(unit=64),
    "position_out_of_range": lambda scene: scene.ask(objective="neuron", position=[0, 8]),
    "objective_mismatch": lambda scene: scene.ask(objective="logit"),
    "limit_exceeded": lambda scene: scene.ask(steps=4096),
    "cost_too_high": lambda scene: scene.limited(max_cost=0.01).ask(json=QUESTION),
    "unknown_host": lambda scene: scene.http.get("/v1/models", headers={"Host": "example.org"}),
    "queue_full": lambda scene: _one_too_many(scene, "max_queued"),
    "caller_queue_full": lambda scene: _one_too_many(scene, "max_queued_per_caller"),
    "rate_limited": _keyed_after_the_first,
    "headers_too_large": lambda scene: scene.http.get("/v1/models", headers={"X": "x" * 17_000}),
    "model_unavailable": lambda scene: scene.ask(model="broken"),
}

#: ProblemCode → file and beginning of the name of the test that produces it with a request.
ELSEWHERE: dict[ProblemCode, str] = {
    "bad_request": "server/test_protocol.py::test_what_is_no_request_is_answered_with_a_problem",
    "request_timeout": "middleware/test_limits.py::test_a_body_that_does_not_come_is_not_waited_for",
    "too_many_streams": "api/test_events.py::test_a_caller_has_so_many_streams",
    "too_many_connections": "server/test_protocol.py::test_connections_beyond_the_limit_are_refused",
    "too_many_in_flight": "middleware/test_authentication.py::test_a_key_has_so_many_jobs_in_flight",
    "too_many_batches": "api/test_batches.py::test_a_caller_has_so_many_batches",
    "too_many_webhooks": "api/test_webhooks.py::test_more_urls_than_one_caller_may_have_told",
    "unknown_attribution": "api/test_attributions.py::test_one_that_waits_is_canceled_and_deleted",
    "attribution_ended": "api/test_attributions.py::test_one_that_ended_stays_as_it_is",
    "invalid_image": "api/test_attributions.py::test_what_cannot_be_is_refused_and_leaves_nothing",
    "invalid_multipart": "api/test_attributions.py::test_a_form_that_cannot_be_read",
    "unknown_caller": "api/test_callers.py::test_an_admin_cancels_by_caller",
    "unreadable_record": "scenarios/test_unreadable.py::test_a_record_that_cannot_be_read_is_listed",
    "unknown_delivery": "api/test_webhooks.py::test_what_is_not_there_is_said",
    "webhook_refused": "api/test_webhooks.py::test_without_an_operator_s_list_every_url_is_refused",
    "internal_error": "test_app.py::test_a_failure_of_the_server_is_a_problem",
    "no_worker": "api/test_visualizations.py::test_without_a_worker_a_question_is_refused_for_now",
    "redis_unavailable": "api/test_health.py::test_a_missing_redis_is_named_and_does_not_touch_liveness",
    "queue_memory_full": "backend/test_backend.py::test_redis_that_refuses_to_write_is_a_problem_of_redis",
    "storage_unavailable": "api/test_visualizations.py::test_a_store_that_cannot_be_read",
}


@pytest.fixture
def scene(
    settings: ServiceSettings, redis: redis_client.Redis, player: Player, served: Http, worker: BatchPlayer
) -> Scene:
    return Scene(settings, redis, player, served, worker)


@pytest.mark.parametrize("code", ASKED)
def test_a_request_is_answered_with_the_code(scene: Scene, code: ProblemCode) -> None:
    response = ASKED[code](scene)
    kind = KINDS[code]
    assert (response.status_code, response.json()["code"]) == (kind.status, code), response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    document = response.json()
    assert (document["title"], document["status"]) == (kind.title, kind.status)
    assert ("retry-after" in response.headers) == (kind.retry_after_s is not None)


@pytest.mark.parametrize("code", ELSEWHERE)
def test_the_test_that_is_named_for_a_code_is_there_and_about_it(code: ProblemCode) -> None:
    file, _, name = ELSEWHERE[code].partition("::")
    text = (TESTS / file).read_text()
    named = [
        "\n".join(map(ast.unparse, [*node.decorator_list, node]))
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith(name)
    ]
    assert named, f"{ELSEWHERE[code]} is not there"
    assert any(repr(code) in each for each in named), f"{ELSEWHERE[code]} says nothing of {code}"


def test_every_code_is_produced_here_or_there() -> None:
    assert sorted([*ASKED, *ELSEWHERE]) == sorted(get_args(ProblemCode)), (
        "a new code needs a request that produces it, in ASKED, or the test that does, in ELSEWHERE"
    )
