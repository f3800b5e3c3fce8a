"""A caller's jobs are canceled by itself or an operator, and with its key."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pytest
import redis as redis_client

from service.auth import key_ring
from service.auth.keys import Keys
from service.auth.scopes import Scope
from service.cli import keys as command
from service.settings import ServiceSettings
from tests.service.api.test_visualizations import QUESTION, problem_of
from tests.service.conftest import Http
from tests.support.batch_player import BatchPlayer

BATCH = {"model": "digits", "layer": "layer3", "units": [1, 2, 3]}


@pytest.fixture(autouse=True)
def _keys_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 0.0)


def key(redis: redis_client.Redis, *scopes: Scope) -> tuple[str, dict[str, str]]:
    held: Sequence[Scope] = scopes or ("read", "submit")
    record, token = Keys(redis).create("k", held)
    return record.id, {"Authorization": f"Bearer {token}"}


def under_way(served: Http, worker: BatchPlayer, headers: dict[str, str]) -> list[str]:
    """Paths of a job and a batch of a caller."""
    asked = [
        served.ask(json=QUESTION, headers=headers),
        served("POST", "/v1/batches", json=BATCH, headers=headers),
    ]
    worker.expand()
    return [response.json()["links"]["self"] for response in asked]


def test_an_admin_cancels_by_caller(served: Http, redis: redis_client.Redis, worker: BatchPlayer) -> None:
    (owner, own), (_, stranger), (_, admin) = key(redis), key(redis), key(redis, "admin")
    paths = under_way(served, worker, own)
    problem_of(served("POST", f"/v1/callers/{owner}/cancel", headers=stranger), 403, "forbidden")
    response = served("POST", f"/v1/callers/{owner}/cancel", headers=admin)
    assert (response.status_code, response.json()) == (200, {"visualizations": 4, "batches": 1})
    assert {served.get(path, headers=own).json()["state"] for path in paths} == {"canceled"}
    again = served("POST", f"/v1/callers/{owner}/cancel", headers=own)  # its own, without the scope
    assert again.json() == {"visualizations": 0, "batches": 0}
    problem_of(served("POST", "/v1/callers/nobody/cancel", headers=admin), 422, "invalid_request")
    problem_of(served("POST", f"/v1/callers/{'0' * 12}/cancel", headers=admin), 404, "unknown_caller")


@pytest.mark.parametrize("cancel", [False, True])
def test_a_revoked_key_takes_its_jobs_along_if_that_is_wanted(
    served: Http,
    redis: redis_client.Redis,
    worker: BatchPlayer,
    settings: ServiceSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cancel: bool,
) -> None:
    (owner, own), (_, admin) = key(redis), key(redis, "admin")
    paths = under_way(served, worker, own)
    monkeypatch.setenv("REDIS_URL", settings.redis_url or "")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args(["revoke", owner, *(["--cancel-jobs"] if cancel else [])]))
    assert ("canceled 4 visualizations and 1 batches" in capsys.readouterr().out) == cancel
    states = {served.get(path, headers=admin).json()["state"] for path in paths}
    assert states == ({"canceled"} if cancel else {"queued", "running"})
    problem_of(served.ask(json=QUESTION, headers=own), 401, "unauthorized")
