"""Attributions, asked for and followed with either kind of client."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from PIL import Image

from proxygrad.client import (
    Canceled,
    Conflict,
    Failed,
    Invalid,
    InvalidArgument,
    NotFound,
    SaveError,
    StateEvent,
    parameters,
)
from proxygrad.protocol.attributions import Attribution
from proxygrad.spec.attribution import AttributionResult
from tests.proxygrad.client.conftest import Connect
from tests.service.conftest import PNG, Player, picture
from tests.support.flaky_server import Flaky, busy, dropped, lost
from workers.broker.rq_names import QUEUE_KEY, entry_key
from workers.jobs.kinds.attribution import CONTRIBUTIONS, HEATMAP, OVERLAY, AttributionJob
from workers.storage.paths import artifact_path, result_path

QUESTION: dict[str, Any] = {"model": "digits", "layer": "fc", "unit": 3}
NPY = b"\x93NUMPY" + bytes(8)
FILES = {HEATMAP: picture("RGB"), OVERLAY: picture("RGB", (32, 31)), CONTRIBUTIONS: NPY}


class AttributionPlayer(Player):
    """Plays the worker of attributions."""

    def begin(self, job_id: str, step: int = 0) -> None:
        started_at = self._attribution(job_id).created_at + 1.5
        self._write(job_id, {"state": "running", "started_at": started_at, "step": step})

    def succeed(self, job_id: str) -> None:
        self.begin(job_id, 1)
        job = self._attribution(job_id)
        files = {
            name: {
                "sha256": hashlib.sha256(data).hexdigest(),
                "size_bytes": len(data),
                "media_type": "image/png" if name.endswith(".png") else "application/x-npy",
            }
            for name, data in FILES.items()
        }
        for name, data in FILES.items():
            self._store.put(artifact_path(job_id, name), data)
        result = AttributionResult.model_validate(
            {
                "spec": job.spec,
                "value": 3.5,
                "reference_value": 0.5,
                "delta": {"absolute": 1e-6, "relative": 1e-6},
                "shape": (1, 32, 32),
                "scale": 0.2,
                "digest": self._info.digest,
                "engine_version": self._info.engine_version,
                "device": "cpu",
                "dtype": "float32",
                "ran_s": 0.5,
            }
        )
        ended = {"state": "succeeded", "finished_at": job.created_at + 2, "result": result, "activation": 3.5}
        done = AttributionJob.model_validate({**job.model_dump(), **ended, "files": files})
        self._store.put(result_path(job_id), done.model_dump_json().encode())
        record = json.loads(done.model_dump_json())
        texts = {name: json.dumps(record[name]) for name in ("result", "files")}
        self._redis.hset(entry_key(job_id), "status", "finished")
        self._write(job_id, {**{name: record[name] for name in ended if name != "result"}, **texts})

    def _attribution(self, job_id: str) -> AttributionJob:
        job = self._jobs.fetch(job_id)
        assert isinstance(job, AttributionJob)
        return job


@pytest.fixture
def worker(player: Player) -> AttributionPlayer:
    return AttributionPlayer(player._redis, player._store, player._info)


def test_ask_follow_fetch(client: Any, worker: AttributionPlayer) -> None:
    asked = client.attribute(PNG, **QUESTION, reference="mean")
    assert (asked.state, asked.spec.reference, asked.cached) == ("queued", "mean", False)
    assert (asked.spec.image.height_px, asked.spec.image.width_px) == (32, 32)
    with pytest.raises(LookupError, match="wait for its result"):
        asked.result  # noqa: B018
    with pytest.raises(NotFound, match="image_not_ready"):
        asked.contributions()
    seen: list[str] = []

    def show(answer: Attribution) -> None:
        if answer.state not in seen:
            seen.append(answer.state)
            {"queued": worker.begin, "running": worker.succeed}.get(answer.state, len)(answer.id)

    assert asked.wait(progress=show) is asked
    assert seen == ["queued", "running", "succeeded"]
    assert (asked.result.value, asked.result.delta.absolute, asked.problem) == (3.5, 1e-6, None)
    assert asked.image() == asked.image("heatmap") == FILES[HEATMAP]
    assert asked.image("overlay") == FILES[OVERLAY]
    assert asked.contributions() == NPY
    again = client.attribute(PNG, **QUESTION, reference="mean")
    assert (again.id, again.cached, again.wait().state) == (asked.id, True, "succeeded")
    assert client.get_attribution(asked.id, wait_s=1).result == asked.result


def test_a_picture_is_bytes_or_a_path_or_of_a_visualization(
    client: Any, player: Player, tmp_path: Path
) -> None:
    (tmp_path / "own.png").write_bytes(PNG)
    ids = {
        client.attribute(given, **QUESTION).id for given in (PNG, tmp_path / "own.png", f"{tmp_path}/own.png")
    }
    made = client.visualize(**QUESTION, images=2)
    with pytest.raises(NotFound, match="image_not_ready"):
        client.attribute(made, **QUESTION)
    player.succeed(made.id)
    made.refresh()
    assert (made.result.best, client.attribute(made, **QUESTION, number=0).id) == (1, *ids)  # PNG as well
    best = client.attribute(made, **QUESTION)
    assert best.id == client.attribute(made, **QUESTION, number=1).id not in ids
    assert best.spec.image.height_px == 31
    with pytest.raises(NotFound, match="no image 2"):
        client.attribute(made, **QUESTION, number=2)


def test_references_are_names_grays_and_files(client: Any, player: Player, tmp_path: Path) -> None:
    (tmp_path / "own.png").write_bytes(PNG)

    def spec(image: Any, reference: Any, **more: Any) -> Any:
        return client.attribute(image, **QUESTION, reference=reference, **more).spec

    alone = spec(PNG, PNG)
    assert (alone.reference, alone.reference_images.number) == ("uploaded", 1)
    assert spec(PNG, tmp_path / "own.png") == spec(PNG, [f"{tmp_path}/own.png"]) == alone
    mixed = spec(PNG, ["zeros", PNG, 0.5, PNG, "shuffled"], references=3, seed=7)
    assert mixed.reference == ("zeros", "uploaded", 0.5, "shuffled")
    assert (mixed.reference_images.number, mixed.reference_count, mixed.seed) == (2, 7, 7)
    assert spec(PNG, 1).reference == 1.0
    made = client.visualize(**QUESTION)
    player.succeed(made.id)
    made.refresh()
    assert spec(made, PNG) == alone  # its image is that picture


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_arrays_and_tensors_are_sent_as_they_are(client: Any, dtype: str) -> None:
    np = pytest.importorskip("numpy", reason="arrays are what is sent")
    whole = np.random.default_rng(0).integers(0, 2, (64, 32, 1)).astype(dtype)
    array = whole[::2].transpose(2, 0, 1)  # (1, 32, 32), with strides of its own
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    sent = client.attribute(buffer.getvalue(), **QUESTION, reference=buffer.getvalue())
    assert client.attribute(array, **QUESTION, reference=[array]).id == sent.id
    torch = pytest.importorskip("torch", reason="tensors are what is sent")
    tensor = torch.from_numpy(array.copy())
    assert client.attribute(tensor, **QUESTION, reference=tensor).id == sent.id
    stack = client.attribute(array, **QUESTION, reference=np.stack([array, array]))
    assert stack.spec.reference_images.number == 2
    gray = client.attribute(array, **QUESTION, reference=[np.float32(0.5), torch.tensor(0.25)])
    assert gray.spec.reference == (0.5, 0.25)


def test_what_is_no_picture_is_named(client: Any) -> None:
    np = pytest.importorskip("numpy", reason="arrays are what is sent")
    with pytest.raises(InvalidArgument, match="image is of complex128; valid: uint8, float32, float64"):
        client.attribute(np.zeros((1, 32, 32), dtype=complex), **QUESTION)
    with pytest.raises(InvalidArgument, match="image is of type dict; valid: the bytes or path"):
        client.attribute({}, **QUESTION)
    with pytest.raises(InvalidArgument, match="reference is of int64"):
        client.attribute(PNG, **QUESTION, reference=np.zeros((1, 32, 32), dtype=int))
    with pytest.raises(Invalid, match=r"shape \(32, 31\)"):
        client.attribute(PNG, **QUESTION, reference=np.zeros((32, 31)))


def test_what_cannot_be_sent_is_named_and_what_is_refused_too(
    client: Any, redis: redis_client.Redis, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match=r"image='.*none\.png' cannot be read: No such file"):
        client.attribute(tmp_path / "none.png", **QUESTION)
    with pytest.raises(InvalidArgument, match="number=0"):
        client.attribute(PNG, **QUESTION, number=0)
    with pytest.raises(InvalidArgument, match="reference=nan"):
        client.attribute(PNG, **QUESTION, reference=float("nan"))
    with pytest.raises(InvalidArgument, match="attribution_id=''"):
        client.get_attribution("")
    with pytest.raises(Invalid, match="invalid_image"):
        client.attribute(b"no picture", **QUESTION)
    with pytest.raises(InvalidArgument, match=r"reference='noise' cannot be read: .*; valid: zeros, mean"):
        client.attribute(PNG, **QUESTION, reference="noise")
    with pytest.raises(Invalid, match="reference 1: the 10 bytes"):
        client.attribute(PNG, **QUESTION, reference=[PNG, b"no picture"])
    with pytest.raises(Invalid, match="names 'uploaded'"):
        client.attribute(PNG, **QUESTION, reference="uploaded")
    huge = PNG[:16] + struct.pack(">II", 2**16, 2**16) + PNG[24:]
    with pytest.raises(Invalid, match="65536 × 65536"):
        client.attribute(huge, **QUESTION)
    assert redis.llen(QUEUE_KEY) == 0


def test_what_failed_raises_its_problem_and_can_be_tried_again(
    client: Any, worker: AttributionPlayer
) -> None:
    asked = client.attribute(PNG, **QUESTION)
    worker.fail(asked.id)
    with pytest.raises(Failed, match=rf"attribution {asked.id} failed: .* \[lane_failed\]"):
        asked.wait()
    with pytest.raises(Failed):
        asked.result  # noqa: B018
    assert asked.retry().state == "queued"
    assert asked.cancel().state == "canceled"
    with pytest.raises(Canceled):
        asked.wait(progress=True)
    asked.retry()
    worker.succeed(asked.id)
    for verb in (asked.cancel, asked.retry):
        with pytest.raises(Conflict, match="has ended"):
            verb()
    asked.delete()
    with pytest.raises(NotFound):
        asked.refresh()


def test_events_are_typed_and_in_order(client: Any, worker: AttributionPlayer) -> None:
    asked = client.attribute(PNG, **QUESTION)
    told: list[str] = []
    for event in asked.events():
        assert isinstance(event, StateEvent)
        if event.state not in told:
            told.append(event.state)
            {"queued": worker.begin, "running": worker.succeed}.get(event.state, len)(asked.id)
    assert told == ["queued", "running", "succeeded"]
    assert asked.result.value == 3.5


def test_a_bar_shows_the_value(
    client: Any, worker: AttributionPlayer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = client.attribute(PNG, **QUESTION)
    worker.succeed(asked.id)
    asked.wait(progress=True)
    shown = capsys.readouterr().err
    assert "digits fc 3: 100%" in shown
    assert "activation 3.5" in shown


def test_files_have_the_format_of_their_names(client: Any, worker: AttributionPlayer, tmp_path: Path) -> None:
    asked = client.attribute(PNG, **QUESTION)
    worker.succeed(asked.id)
    for name, start in (("a.png", b"\x89PNG"), ("b/c.WEBP", b"RIFF"), ("d.npy", NPY), ("e", b"\x89PNG")):
        assert asked.save(tmp_path / name).read_bytes().startswith(start)
    with Image.open(asked.save(tmp_path / "o.webp", "overlay")) as overlay:
        assert (overlay.format, overlay.size) == ("WEBP", (32, 31))
    with Image.open(io.BytesIO(asked.image(format="webp", scale=2))) as larger:
        assert (larger.format, larger.size) == ("WEBP", (64, 64))
    with pytest.raises(Invalid, match="width"):
        asked.image(width=5)
    with pytest.raises(SaveError, match=r"\.png, \.webp or \.npy"):
        asked.save(tmp_path / "heatmap.jpg")


def test_lists_go_through_all_pages(
    client: Any, worker: AttributionPlayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameters, "PAGE_SIZE", 2)
    ids = [client.attribute(PNG, **QUESTION | {"unit": unit}).id for unit in range(5)]
    client.visualize(**QUESTION)
    worker.succeed(ids[1])
    assert [one.id for one in client.attributions()] == ids[::-1]
    assert [one.id for one in client.attributions(model="digits", state="succeeded")] == [ids[1]]
    assert len([*client.attributions(state=["queued", "running"], layer=["layer3", "fc"])]) == 4
    assert [*client.attributions(layer="layer2")] == []


def test_a_picture_whose_answer_got_lost_is_sent_again_and_computed_once(
    shaky: Flaky, connect: Connect, redis: redis_client.Redis
) -> None:
    shaky.moods.extend([lost, dropped, busy(504)])
    asked = connect(shaky.url).attribute(PNG, **QUESTION)
    assert [(each.method, each.path) for each in shaky.seen] == [("POST", "/v1/attributions")] * 4
    assert (asked.state, redis.llen(QUEUE_KEY)) == ("queued", 1)


def test_the_same_idempotency_key_is_the_same_request(client: Any, worker: AttributionPlayer) -> None:
    asked = client.attribute(PNG, **QUESTION, idempotency_key="first")
    worker.fail(asked.id)
    assert client.attribute(PNG, **QUESTION, idempotency_key="first").state == "failed"
    with pytest.raises(Conflict, match="first"):
        client.attribute(picture(size=(32, 31)), **QUESTION, idempotency_key="first")
