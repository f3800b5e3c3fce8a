"""All images of a visualization as one: its grid and its animation."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.service.api.test_visualizations import asked, problem_of
from tests.service.conftest import Http, Player

CHAINS = {"sampler": "langevin", "images": 6, "langevin": {"chains": 2, "burn_in": 1, "thinning": 1}}


@pytest.fixture
def chains(served: Http, player: Player) -> str:
    """The path of three samples of each of two chains."""
    job_id = asked(served, **CHAINS)
    player.succeed(job_id)
    return f"/v1/visualizations/{job_id}"


def frames(content: bytes) -> list[int]:
    """The gray level of a corner of each frame."""
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "WEBP"
        levels = []
        for number in range(getattr(picture, "n_frames", 1)):
            picture.seek(number)
            levels.append(picture.convert("L").getpixel((0, 0)))
    return levels  # type: ignore[return-value]


def test_a_row_of_the_grid_is_a_chain(served: Http, chains: str) -> None:
    links = served.get(chains).json()["links"]
    assert (links["grid"], links["animation"]) == (f"{chains}/grid", f"{chains}/animation")
    response = served.get(links["grid"])
    with Image.open(io.BytesIO(response.content)) as rows:
        assert rows.format == "PNG"
        with Image.open(io.BytesIO(served.get(links["grid"] + "?columns=6").content)) as row:
            assert rows.width < row.width
            assert rows.height > row.height
    assert served.get(f"{chains}/grid.webp").headers["content-type"] == "image/webp"
    tag = response.headers["etag"]
    assert served.get(f"{chains}/grid", headers={"If-None-Match": tag}).status_code == 304
    assert "no-store" not in response.headers["cache-control"]
    problem_of(served.get(f"{chains}/grid.npy"), 406, "not_acceptable")


def test_the_animation_has_a_frame_for_each_image(served: Http, chains: str) -> None:
    every = served.get(f"{chains}/animation")
    assert every.status_code == 200, every.text
    assert every.headers["content-type"] == "image/webp"
    assert len(frames(every.content)) == 6
    first, second = (frames(served.get(f"{chains}/animation?chain={chain}").content) for chain in (0, 1))
    assert frames(every.content) == first + second
    slow = served.get(f"{chains}/animation.webp?frame_ms=900")
    assert slow.headers["etag"] != every.headers["etag"]
    tag = every.headers["etag"]
    assert served.get(f"{chains}/animation", headers={"If-None-Match": tag}).status_code == 304
    found = problem_of(served.get(f"{chains}/animation?chain=2"), 422, "invalid_request")
    assert found["detail"] == "there is no chain 2; valid: 0 to 1"


def test_one_image_has_neither_link_and_an_unfinished_job_no_images(served: Http, player: Player) -> None:
    job_id = asked(served)
    path = f"/v1/visualizations/{job_id}"
    for name in ("grid", "animation"):
        problem_of(served.get(f"{path}/{name}"), 404, "image_not_ready")
    player.succeed(job_id)
    links = served.get(path).json()["links"]
    assert (links["grid"], links["animation"]) == (None, None)
    assert len(frames(served.get(f"{path}/animation").content)) == 1
    problem_of(served.get(f"{path}/animation?chain=0"), 422, "invalid_request")
    problem_of(served.get(f"/v1/visualizations/{'0' * 32}/grid"), 404, "unknown_visualization")


def test_images_that_are_gone_are_named(served: Http, player: Player, chains: str) -> None:
    player.lose(chains.rpartition("/")[2], 4)
    for name in ("grid", "animation"):
        problem_of(served.get(f"{chains}/{name}"), 404, "no_image")
