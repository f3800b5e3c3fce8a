"""References that are sent beside a picture, or named by its request."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest

pytest.importorskip("numpy", reason="arrays are made with it")

import numpy as np

from tests.service.api.test_attributions import drawn, sent
from tests.service.api.test_visualizations import asked, problem_of
from tests.service.conftest import Http, Player
from workers.jobs.inputs import REFERENCES
from workers.storage.store import Store

PATH = "/v1/attributions"


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
