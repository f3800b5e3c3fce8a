"""An attribution in each state: what is answered, listed, tried again, and left when it is deleted."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_client
from PIL import Image

from tests.service.api.test_attributions import QUESTION, drawn, sent
from tests.service.api.test_visualizations import asked, problem_of
from tests.service.conftest import Http
from tests.support import attribution_player
from workers.broker.keys import JOBS_KEY, job_key
from workers.broker.rq_names import QUEUE_KEY
from workers.jobs.inputs import INPUT
from workers.storage.store import Store

Succeed = Callable[[str], dict[str, bytes]]


@pytest.fixture
def kept(settings: Any) -> Store:
    return Store.from_url(settings.store_url)


@pytest.fixture
def succeed(redis: redis_client.Redis, kept: Store) -> Succeed:
    """Ends a job well, and has its files."""
    return lambda job_id: attribution_player.succeed(redis, kept, job_id)


def requested(http: Http, level: int = 255, **changes: Any) -> str:
    response = sent(http, drawn(level), **changes)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def path_of(job_id: str) -> str:
    return f"/v1/attributions/{job_id}"


def test_the_picture_is_stored_under_the_job_as_the_network_sees_it(served: Http, kept: Store) -> None:
    np = pytest.importorskip("numpy")
    response = sent(served, drawn(200, (64, 48)), size_px=16).json()
    stored = kept.get(f"{response['id']}/{INPUT}")
    assert stored is not None
    assert response["spec"]["image"] == {
        "sha256": hashlib.sha256(stored).hexdigest(),
        "channels": 1,
        "height_px": 16,
        "width_px": 16,
    }
    np.testing.assert_array_equal(np.load(io.BytesIO(stored)), np.full((1, 16, 16), 200))


def test_a_picture_that_was_damaged_in_the_store_is_stored_again(served: Http, kept: Store) -> None:
    job_id = requested(served)
    whole = kept.get(f"{job_id}/{INPUT}")
    kept.replace(f"{job_id}/{INPUT}", b"half of it")
    assert requested(served) == job_id
    assert kept.get(f"{job_id}/{INPUT}") == whole


def test_what_is_refused_leaves_no_picture(served: Http, settings: Any) -> None:
    for changes in ({"unit": 11}, {"size_px": 513}, {"method": "integrated_gradients", "points": 1001}):
        assert sent(served, drawn(), **changes).status_code == 422
    folder = settings.home / "artifacts"
    assert not folder.exists() or list(folder.iterdir()) == []


def test_one_that_succeeded_is_answered_at_once(served: Http, succeed: Succeed) -> None:
    job_id = requested(served)
    succeed(job_id)
    response = sent(served, drawn())
    document, path = response.json(), path_of(job_id)
    assert (response.status_code, document["state"], document["id"]) == (200, "succeeded", job_id)
    assert (document["waited_s"], document["ran_s"]) == (pytest.approx(1.5), pytest.approx(2.5))
    assert document["progress"] == {"step": 1, "steps": 1, "activation": 3.0}
    assert document["result"]["spec"] == document["spec"]
    assert document["result"]["delta"]["relative"] == 0.125
    assert document["links"] == {
        "self": path,
        **{name: f"{path}/images/{name}" for name in ("heatmap", "overlay")},
        **{name: f"{path}/{name}" for name in ("contributions", "events", "cancel", "retry")},
    }


def test_the_store_answers_for_what_redis_forgot(
    served: Http, succeed: Succeed, redis: redis_client.Redis
) -> None:
    job_id = requested(served)
    files = succeed(job_id)
    before = served.get(path_of(job_id)).json()
    redis.delete(job_key(job_id))
    assert served.get(path_of(job_id)).json() == before
    assert served.get(f"{path_of(job_id)}/images/heatmap").content == files["heatmap.png"]
    assert sent(served, drawn()).status_code == 200


@pytest.mark.parametrize("name", ["heatmap", "overlay"])
def test_its_pictures_are_read_in_each_format_and_size(served: Http, succeed: Succeed, name: str) -> None:
    job_id = requested(served)
    files, path = succeed(job_id), f"{path_of(job_id)}/images/{name}"
    png = served.get(path)
    assert (png.content, png.headers["content-type"]) == (files[f"{name}.png"], "image/png")
    assert "immutable" in png.headers["cache-control"]
    assert served.get(path, headers={"If-None-Match": png.headers["etag"]}).status_code == 304
    part = served.get(path, headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, png.content[:4])
    for webp in (served.get(f"{path}.webp"), served.get(path, headers={"Accept": "image/webp"})):
        assert webp.headers["content-type"] == "image/webp"
        assert webp.headers["etag"] != png.headers["etag"]
    with Image.open(io.BytesIO(served.get(f"{path}.png", params={"scale": 3}).content)) as enlarged:
        assert enlarged.size == (96, 96)
    problem_of(served.get(path, headers={"Accept": "application/x-npy"}), 406, "not_acceptable")
    problem_of(served.get(f"{path}.npy"), 406, "not_acceptable")
    problem_of(served.get(path, params={"scale": 2, "width": 32}), 422, "invalid_request")
    problem_of(served.get(path, params={"scale": 17}), 422, "invalid_request")
    problem_of(served.get(path, headers={"Range": "bytes=99999999-"}), 416, "range_not_satisfiable")


def test_its_contributions_are_read(served: Http, succeed: Succeed) -> None:
    np = pytest.importorskip("numpy")
    job_id = requested(served)
    files, path = succeed(job_id), f"{path_of(job_id)}/contributions"
    response = served.get(path)
    assert (response.content, response.headers["content-type"]) == (
        files["contributions.npy"],
        "application/x-npy",
    )
    assert np.load(io.BytesIO(response.content)).shape == (1, 32, 32)
    assert served.get(path, headers={"If-None-Match": response.headers["etag"]}).status_code == 304
    assert served.get(path, headers={"Range": "bytes=1-5"}).content == b"NUMPY"


@pytest.mark.parametrize(
    "name", ["images/none", "images/0", "images/heatmap.gif", "images/input", "input.npy"]
)
def test_there_are_no_other_files(served: Http, succeed: Succeed, name: str) -> None:
    job_id = requested(served)
    succeed(job_id)
    assert served.get(f"{path_of(job_id)}/{name}").status_code in (404, 406)


def test_a_file_that_is_gone_is_named(served: Http, succeed: Succeed, kept: Store) -> None:
    job_id = requested(served)
    succeed(job_id)
    kept.delete(f"{job_id}/overlay.png")
    found = problem_of(served.get(f"{path_of(job_id)}/images/overlay"), 404, "no_image")
    assert "request the attribution again" in found["detail"]


def test_one_that_failed_says_why_and_is_tried_again(
    served: Http, redis: redis_client.Redis, kept: Store
) -> None:
    job_id = requested(served)
    attribution_player.fail(redis, job_id)
    found = problem_of(served.get(f"{path_of(job_id)}/images/heatmap"), 404, "no_image")
    assert "the picture is gone" in found["detail"]
    kept.delete(f"{job_id}/{INPUT}")
    assert requested(served) == job_id
    assert kept.get(f"{job_id}/{INPUT}"), "who asks again brings the picture again"
    attribution_player.fail(redis, job_id)
    response = served("POST", f"{path_of(job_id)}/retry")
    assert (response.status_code, response.json()["state"]) == (202, "queued")


@pytest.mark.parametrize("state", ["queued", "canceled", "failed", "succeeded", "stored"])
def test_nothing_is_left_of_what_was_deleted(
    served: Http, succeed: Succeed, redis: redis_client.Redis, settings: Any, state: str
) -> None:
    job_id, other = requested(served), requested(served, 0)
    if state == "canceled":
        served("POST", f"{path_of(job_id)}/cancel")
    elif state == "failed":
        attribution_player.fail(redis, job_id)
    elif state != "queued":
        succeed(job_id)
    if state == "stored":
        redis.delete(job_key(job_id))
    response = served("DELETE", path_of(job_id))
    assert (response.status_code, response.content) == (204, b"")
    for path in ("", "/images/heatmap", "/contributions", "/events"):
        problem_of(served.get(path_of(job_id) + path), 404, "unknown_attribution")
    problem_of(served("DELETE", path_of(job_id)), 404, "unknown_attribution")
    assert redis.keys(f"*{job_id}*") == []
    assert redis.zrange(JOBS_KEY, 0, -1) == redis.lrange(QUEUE_KEY, 0, -1) == [other.encode()]
    assert not (settings.home / "artifacts" / job_id).exists()
    assert requested(served) == job_id


def test_the_list_filters_and_has_pages(served: Http, succeed: Succeed, redis: redis_client.Redis) -> None:
    waits, done, failed = (requested(served, level) for level in (1, 2, 3))
    succeed(done)
    attribution_player.fail(redis, failed)
    asked(served)  # a visualization is in no list of attributions
    layer3 = requested(served, layer="layer3", unit=40)

    def listed(**query: Any) -> list[str]:
        response = served.get("/v1/attributions", params=query)
        assert response.status_code == 200, response.text
        return [each["id"] for each in response.json()["attributions"]]

    assert listed() == [layer3, failed, done, waits]
    assert listed(state="queued") == [layer3, waits]
    assert listed(state=["failed", "succeeded"]) == [failed, done]
    assert listed(layer="layer3") == [layer3]
    assert listed(model="digits", layer="fc", state="queued") == [waits]
    assert listed(model="none") == []
    first = served.get("/v1/attributions?limit=3&layer=fc").json()
    assert [each["id"] for each in first["attributions"]] == [failed, done, waits]
    second = served.get("/v1/attributions?limit=1").json()
    assert second["links"]["next"]
    assert served.get(second["links"]["next"]).json()["attributions"][0]["id"] == failed
    for query in ("state=none", "limit=0", "cursor=x", "stat=queued"):
        problem_of(served.get(f"/v1/attributions?{query}"), 422, "invalid_request")


@pytest.mark.parametrize("path", ["", "/images/heatmap", "/contributions", "/events"])
def test_the_id_of_another_kind_is_unknown(served: Http, succeed: Succeed, path: str) -> None:
    visualization = asked(served)
    problem_of(served.get(path_of(visualization) + path), 404, "unknown_attribution")
    problem_of(served("DELETE", path_of(visualization)), 404, "unknown_attribution")
    attribution = requested(served)
    succeed(attribution)
    problem_of(served.get(f"/v1/visualizations/{attribution}"), 404, "unknown_visualization")
    problem_of(served.get(f"/v1/visualizations/{attribution}/images/0"), 404, "unknown_visualization")
    body = json.dumps(QUESTION | {"image": {"visualization": attribution}})
    response = served("POST", "/v1/attributions", content=body, headers={"content-type": "application/json"})
    problem_of(response, 404, "unknown_visualization")
