"""Attributions at the gateway: what is refused, and what is one job."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import redis as redis_client
from PIL import Image

from tests.service.api.test_visualizations import asked, problem_of
from tests.service.conftest import Http, Player
from workers.broker.keys import job_key

QUESTION: dict[str, Any] = {"model": "digits", "layer": "fc", "unit": 3}


def drawn(level: int = 255, size: tuple[int, int] = (32, 32), form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, level).save(buffer, format=form)
    return buffer.getvalue()


def sent(http: Http, picture: bytes | None, document: Any = None, beside: Any = (), **changes: Any) -> Any:
    """``beside``: references."""
    body = json.dumps(QUESTION | changes) if document is None else document
    files: Any = [] if picture is None else [("image", ("picture", picture))]
    files += [("reference", ("picture", each)) for each in beside]
    return http("POST", "/v1/attributions", files=files or None, data={"attribution": body})


def test_a_new_one_is_queued_and_the_same_picture_joined(served: Http, redis: redis_client.Redis) -> None:
    response = sent(served, drawn())
    document = response.json()
    assert response.status_code == 202, document
    assert response.headers["location"] == f"/v1/attributions/{document['id']}" == document["links"]["self"]
    assert (document["state"], document["result"], document["links"]["heatmap"]) == ("queued", None, None)
    assert document["spec"]["image"]["width_px"] == 32
    assert sent(served, drawn(form="WEBP")).json()["id"] != sent(served, drawn(0)).json()["id"]
    assert sent(served, drawn()).json()["id"] == document["id"]
    assert sent(served, drawn(), rule="rescale").json()["id"] != document["id"]
    assert served.get("/v1/attributions").json()["attributions"][-1]["id"] == document["id"]
    assert served.get("/v1/visualizations").json()["visualizations"] == []


@pytest.mark.parametrize(
    ("image", "changes", "status", "code", "words"),
    [
        (b"no picture", {}, 422, "invalid_image", "valid: PNG, JPEG, WebP, NPY"),
        (b"", {}, 422, "invalid_image", "0 bytes"),
        (None, {}, 400, "invalid_multipart", ""),
        (drawn(), {"unit": 11}, 422, "unit_out_of_range", "unit 11"),
        (drawn(), {"layer": "none"}, 404, "unknown_layer", "none"),
        (drawn(), {"reference": "noise"}, 422, "invalid_request", "reference"),
        (drawn(), {"reference": 1.5}, 422, "invalid_request", "unknown reference 1.5; valid: zeros, mean,"),
        (drawn(), {"reference": ["zeros", "noise"]}, 422, "invalid_request", "unknown reference 'noise'"),
        (drawn(), {"reference": []}, 422, "invalid_request", "0 references in a list; valid: 1 to 16"),
        (drawn(), {"references": 3}, 422, "invalid_request", "applies to reference 'shuffled'"),
        (
            drawn(),
            {"reference": ["shuffled", 1], "references": 100},
            422,
            "invalid_request",
            "101 references",
        ),
        (drawn(), {"reference": "uploaded"}, 422, "invalid_request", "the form has no part 'reference'"),
        (drawn(), {"method": "magic"}, 422, "invalid_request", "method"),
        (drawn(), {"method": "saliency", "rule": "rescale"}, 422, "invalid_request", "applies to method"),
        (drawn(), {"points": 1001, "method": "integrated_gradients"}, 422, "invalid_request", "points"),
        (drawn(), {"at": "fc"}, 422, "invalid_request", "valid: a feature map"),
        (drawn(), {"what": 1}, 422, "invalid_request", "what"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    served: Http, image: bytes | None, changes: dict[str, Any], status: int, code: str, words: str
) -> None:
    response = sent(served, image, **changes)
    if image is None:  # without a file the body is no form of several parts
        assert response.status_code in (400, 415, 422)
    else:
        found = problem_of(response, status, code)
        assert words in json.dumps(found)
    assert served.get("/v1/attributions").json()["attributions"] == []


def test_an_image_of_a_visualization_is_named(served: Http, player: Player) -> None:
    job_id = asked(served)
    body = QUESTION | {"image": {"visualization": job_id}}
    problem_of(served("POST", "/v1/attributions", json=body), 404, "image_not_ready")
    player.succeed(job_id)
    assert served("POST", "/v1/attributions", json=body).status_code == 202
    body["image"] = {"visualization": job_id, "number": 1}
    problem_of(served("POST", "/v1/attributions", json=body), 404, "no_image")
    body["image"] = {"visualization": "0" * 32}
    problem_of(served("POST", "/v1/attributions", json=body), 404, "unknown_visualization")
    problem_of(served("POST", "/v1/attributions", json=QUESTION), 422, "invalid_request")


def test_a_form_that_cannot_be_read(served: Http) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x\r\nnonsense", b"no form"):
        response = served("POST", "/v1/attributions", content=body, headers=headers)
        assert response.json()["code"] in ("invalid_multipart", "invalid_request"), response.text
    response = served(
        "POST", "/v1/attributions", content=b"--x", headers={"content-type": "multipart/form-data"}
    )
    problem_of(response, 400, "invalid_multipart")


def test_one_that_ended_stays_as_it_is(served: Http, redis: redis_client.Redis) -> None:
    document = sent(served, drawn()).json()
    redis.hset(job_key(document["id"]), mapping={"state": "succeeded", "finished_at": 2e9})
    for action in ("cancel", "retry"):
        problem_of(served("POST", f"{document['links']['self']}/{action}"), 409, "attribution_ended")


def test_a_body_over_the_limit_is_refused(served: Http) -> None:
    problem_of(sent(served, b"\x89PNG\r\n\x1a\n" + bytes(9 * 2**20)), 413, "body_too_large")


def test_one_that_waits_is_canceled_and_deleted(served: Http) -> None:
    path = sent(served, drawn()).json()["links"]["self"]
    problem_of(served.get(f"{path}/images/heatmap"), 404, "image_not_ready")
    assert served("POST", f"{path}/cancel").json()["state"] == "canceled"
    assert served("POST", f"{path}/retry").status_code == 202
    assert served("DELETE", path).status_code == 204
    problem_of(served.get(path), 404, "unknown_attribution")
