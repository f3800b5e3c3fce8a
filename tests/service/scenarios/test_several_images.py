"""Several images of one visualization over HTTP: what is asked, what is answered, and each picture."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import redis as redis_client

from proxygrad.spec import ModelInfo
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.api.test_visualizations import problem_of
from tests.service.conftest import Http, Player, drawn
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel

QUESTION: dict[str, Any] = {"model": "digits", "layer": "layer3", "unit": 7}
SEVERAL = QUESTION | {"images": 2, "diversity": 0.5, "compare": True, "seed": 3}


@pytest.fixture
def answer(served: Http, player: Player) -> dict[str, Any]:
    """A finished visualization of two images and two plain ones."""
    accepted = served.ask(json=SEVERAL)
    assert accepted.status_code == 202
    player.succeed(accepted.json()["id"])
    body: dict[str, Any] = served.get(accepted.headers["location"]).json()
    return body


def test_the_answer_lists_every_picture_with_its_role_and_activation(answer: dict[str, Any]) -> None:
    assert [(each["role"], each["seed"], each["achieved_activation"]) for each in answer["images"]] == [
        ("proxygrad", 3, 3.5),
        ("proxygrad", 4, 4.0),
        ("baseline", 3, 4.5),
        ("baseline", 4, 5.0),
    ]
    result = answer["result"]
    assert (result["best"], result["achieved_activation"]) == (1, 4.0)
    assert result["baseline"] == {
        "image": 3,
        "achieved_activation": 5.0,
        "start_activation": 0.1,
        "stuck": False,
    }
    assert result["baseline_activation"] == 5.0
    assert len(result["images"]) == 4
    assert (answer["spec"]["images"], answer["spec"]["diversity"], answer["spec"]["compare"]) == (
        2,
        0.5,
        True,
    )


def test_the_link_leads_to_the_best_picture_here_and_in_lists(served: Http, answer: dict[str, Any]) -> None:
    best = f"/v1/visualizations/{answer['id']}/images/1"
    assert answer["links"]["image"] == best
    (listed,) = served.get("/v1/visualizations").json()["visualizations"]
    assert listed["links"]["image"] == best


def test_each_picture_is_served_under_its_own_tag(served: Http, answer: dict[str, Any]) -> None:
    tags = set()
    for number, image in enumerate(answer["images"]):
        path = image["links"]["self"]
        response = served.get(path)
        assert response.content == drawn(number)
        assert response.headers["etag"] == f'"{hashlib.sha256(drawn(number)).hexdigest()}"'
        assert image["sha256"] in response.headers["etag"]
        tags.add(response.headers["etag"])
        unchanged = served.get(path, headers={"If-None-Match": response.headers["etag"]})
        assert unchanged.status_code == 304
        assert served.get(f"{path}.webp").status_code == 200
    assert len(tags) == 4


def test_a_number_beyond_them_is_told_which_there_are(served: Http, answer: dict[str, Any]) -> None:
    path = f"/v1/visualizations/{answer['id']}/images"
    said = problem_of(served.get(f"{path}/4"), 404, "no_image")["detail"]
    assert said == "there is no image 4; valid: 0 to 1, and 2 to 3 of plain ascent"


@pytest.mark.parametrize(
    ("wanted", "valid"),
    [
        ({}, "0"),
        ({"compare": True}, "0, and 1 of plain ascent"),
        ({"images": 3}, "0 to 2"),
    ],
)
def test_what_is_valid_follows_the_question(
    served: Http, player: Player, wanted: dict[str, Any], valid: str
) -> None:
    job_id = served.ask(json=QUESTION | wanted).json()["id"]
    player.succeed(job_id)
    said = problem_of(served.get(f"/v1/visualizations/{job_id}/images/9"), 404, "no_image")["detail"]
    assert said == f"there is no image 9; valid: {valid}"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"diversity": 0.5}, "diversity 0.5 with images 1: a single image has none to differ from"),
        ({"compare": True, "slope": 0}, "compare true with slope 0: that is plain activation maximization"),
        ({"images": 17}, "17"),
        ({"images": 2.5}, "2.5"),
        ({"compare": "yes"}, "compare"),
        ({"gaf_alpha": 0.2}, "gaf_alpha 0.2 has no effect with update 'normalized'"),
        ({"gaf_beta": 10, "preset": "max", "gaf": "none"}, "gaf_beta 10 has no effect with gaf 'none'"),
    ],
)
def test_what_makes_no_sense_is_refused(served: Http, wanted: dict[str, Any], said: str) -> None:
    detail = problem_of(served.ask(json=QUESTION | wanted), 422, "invalid_request")["detail"]
    assert said in detail
    assert "{" not in detail  # the values at fault, not the whole question


def test_all_images_count_in_the_cost(
    settings: ServiceSettings, redis: redis_client.Redis, info: ModelInfo
) -> None:
    catalog.publish(redis, "worker-1", [ServedModel(name="digits", info=info)], ttl_s=60)
    http = Http(create_app(settings.model_copy(update={"max_cost": 0.5})))
    assert http.ask(json=QUESTION | {"images": 3}).status_code == 202  # 3 × 128 × 32 × 32 / 10⁶ = 0.393216
    said = problem_of(http.ask(json=QUESTION | {"images": 2, "compare": True}), 422, "cost_too_high")[
        "detail"
    ]
    assert "costs 0.524288 megapixel steps (steps × height × width × 4 images / 10⁶)" in said
    assert said.endswith("use fewer steps, pixels or images, or no comparison")


def test_an_answer_from_before_there_could_be_several_is_read(served: Http, player: Player) -> None:
    """The player writes a single image as it was written then: without `result.images`."""
    job_id = served.ask(json=QUESTION | {"seed": 8}).json()["id"]
    player.succeed(job_id)
    answer = served.get(f"/v1/visualizations/{job_id}").json()
    assert [(each["role"], each["seed"], each["achieved_activation"]) for each in answer["images"]] == [
        ("proxygrad", 8, 3.5)
    ]
    assert answer["result"]["images"] == []
