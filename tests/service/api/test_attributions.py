"""Attributions at the gateway: what is refused, and what is one job."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import numpy as np
import pytest
import redis as redis_client
from PIL import Image

from tests.service.api.test_visualizations import asked, problem_of
from tests.service.conftest import Http, Player
from workers.broker.keys import job_key
from workers.jobs.inputs import REFERENCES
from workers.storage.store import Store

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


def npy(*shape: int, dtype: Any = np.uint8, value: float = 0) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.full(shape, value, dtype=dtype))
    return buffer.getvalue()


def test_references_are_sent_beside_the_picture(served: Http, settings: Any) -> None:
    response = sent(served, drawn(), beside=[drawn(100, (64, 64)), npy(2, 1, 32, 32, value=9)])
    document = response.json()
    assert response.status_code == 202, document
    spec = document["spec"]
    assert (spec["reference"], spec["reference_images"]["number"]) == ("uploaded", 3)
    assert (document["progress"]["step"], document["progress"]["steps"]) == (0, 3)
    stored = Store.from_url(settings.store_url).get(f"{document['id']}/{REFERENCES}")
    assert stored is not None
    assert hashlib.sha256(stored).hexdigest() == spec["reference_images"]["sha256"]
    pixels = np.load(io.BytesIO(stored))
    assert (pixels.shape, pixels.dtype) == ((3, 1, 32, 32), np.uint8)
    assert pixels[:, 0, 0, 0].tolist() == [100, 9, 9]


def test_the_id_depends_on_the_pixels_of_references(served: Http) -> None:
    def job_id(*references: bytes, **changes: Any) -> str:
        response = sent(served, drawn(), beside=references, **changes)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    first = job_id(drawn(100))
    assert job_id(drawn(100, form="WEBP"), reference="uploaded") == first
    assert job_id(npy(1, 32, 32, value=100), reference=["uploaded"]) == first
    others = [
        job_id(drawn(101)),
        job_id(drawn(100), drawn(100)),
        job_id(drawn(100), reference=["uploaded", 1]),
    ]
    assert len({first, *others, job_id()}) == 5


def test_levels_and_numbers_are_one_stack_of_numbers(served: Http, settings: Any) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 8, 32).repeat(4, axis=1)
    buffer = io.BytesIO()
    np.save(buffer, ramp)
    half = npy(1, 32, 32, dtype=np.float64, value=0.5)
    document = sent(served, drawn(), beside=[buffer.getvalue(), half]).json()
    stored = Store.from_url(settings.store_url).get(f"{document['id']}/{REFERENCES}")
    pixels = np.load(io.BytesIO(stored or b""))
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels[0], ramp / np.float32(255))
    assert (pixels[1] == 0.5).all()


@pytest.mark.parametrize(
    ("references", "changes", "code", "words"),
    [
        ([b"none"], {}, "invalid_image", "reference 0: the 4 bytes of the picture are of no known format"),
        ([drawn(), b""], {}, "invalid_image", "reference 1: the 0 bytes"),
        ([npy(1, 32, 31)], {}, "invalid_image", "shape (1, 32, 31); valid: (1, 32, 32) or (32, 32, 1)"),
        ([npy(2, 3, 32, 32)], {}, "invalid_image", "shape (2, 3, 32, 32); valid: (1, 32, 32)"),
        ([npy(1, 32, 32, dtype=float, value=2)], {}, "invalid_image", "valid: 0 to 1"),
        ([npy(101, 1, 32, 32)], {}, "invalid_image", "has 101 pictures; valid: 1 to 100"),
        ([npy(0, 1, 32, 32)], {}, "invalid_image", "has 0 pictures; valid: 1 to 100"),
        ([drawn(), npy(100, 1, 32, 32)], {}, "invalid_image", "has 100 pictures; valid: 1 to 99"),
        ([npy(100, 1, 32, 32), drawn()], {}, "invalid_image", "one picture too many; valid: 100 in all"),
        ([npy(100, 1, 32, 32)], {"reference": ["uploaded", 0]}, "invalid_request", "101 references in all"),
        ([drawn()], {"reference": "zeros"}, "invalid_request", "has no 'uploaded' for the parts 'reference'"),
        ([drawn(0, (5000, 5000))], {}, "limit_exceeded", "5000 × 5000"),
        ([drawn(0, (4000, 3000))] * 2, {}, "limit_exceeded", "reference 1: the picture has 4000 × 3000"),
    ],
)
def test_references_that_cannot_be_are_refused(
    served: Http, references: list[bytes], changes: dict[str, Any], code: str, words: str
) -> None:
    found = problem_of(sent(served, drawn(), beside=references, **changes), 422, code)
    assert words in found["detail"]
    assert served.get("/v1/attributions").json()["attributions"] == []


def test_an_image_of_a_visualization_is_compared_with_what_is_sent(served: Http, player: Player) -> None:
    job_id = asked(served)
    player.succeed(job_id)
    response = sent(served, None, beside=[drawn()], image={"visualization": job_id})
    assert response.status_code == 202, response.text
    assert response.json()["spec"]["reference"] == "uploaded"
    both = sent(served, drawn(), beside=[drawn()], image={"visualization": job_id})
    assert "valid: one of them" in problem_of(both, 422, "invalid_request")["detail"]
