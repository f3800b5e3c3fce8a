"""A gateway in front of a real Valkey and a real store, and the model that a worker would publish."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis as redis_client
from fastapi import FastAPI
from PIL import Image

from proxygrad.protocol.problems import Problem
from proxygrad.protocol.visualizations import ImageInfo
from proxygrad.spec import ImageResult, LayerInfo, ModelInfo, Result
from service.app import create_app
from service.backend import event_hub
from service.settings import ServiceSettings
from tests.support.batch_player import BatchPlayer
from workers.broker.keys import job_key
from workers.broker.rq_names import entry_key
from workers.broker.scripts import compiled
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.jobs.kinds.visualization import VisualizationJob, image_path
from workers.jobs.repository import Jobs
from workers.storage.paths import result_path
from workers.storage.store import Store


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that runs tests may be busy for longer than a caller should wait."""
    monkeypatch.setattr(event_hub, "SUBSCRIBE_S", 20.0)


def picture(mode: str = "L", size: tuple[int, int] = (32, 32)) -> bytes:
    """A PNG with a gray gradient, or three."""
    gray = Image.linear_gradient("L").resize(size)
    bands = [gray, gray.rotate(90), gray.rotate(180)][: len(mode)]
    buffer = io.BytesIO()
    Image.merge(mode, bands).save(buffer, format="PNG")
    return buffer.getvalue()


#: What the worker that is played makes.
PNG = picture()


def drawn(number: int) -> bytes:
    """Its image of that number."""
    return picture(size=(32, 32 - number)) if number else PNG


class Http:
    """Requests to an application without a server between; each call is one whole conversation."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def __call__(self, method: str, path: str, **request: Any) -> httpx.Response:
        return asyncio.run(self._send(method, path, request))

    async def _send(self, method: str, path: str, request: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **request)

    def get(self, path: str, **request: Any) -> httpx.Response:
        return self("GET", path, **request)

    def ask(self, **request: Any) -> httpx.Response:
        return self("POST", "/v1/visualizations", **request)


@pytest.fixture
def info() -> ModelInfo:
    """A model as a worker publishes it: a feature map and the logits."""
    layers = (
        LayerInfo(name="layer2", kind="feature_map", type="Block", shape=(32, 16, 16), units=32),
        LayerInfo(name="layer3", kind="feature_map", type="Block", shape=(64, 8, 8), units=64),
        LayerInfo(name="fc", kind="logits", type="Linear", shape=(10,), units=10),
    )
    return ModelInfo(
        name="digits",
        input_shape=(1, 32, 32),
        classes=tuple("0123456789"),
        digest="d" * 64,
        engine_version="1",
        layers=layers,
        discriminator="c" * 64,
        notes=("weights file digits.pt: the prefix 'module.' of its keys is left out",),
    )


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> ServiceSettings:
    """Settings of a gateway on the tests' own server and store."""
    return ServiceSettings.from_env({"REDIS_URL": redis_url, "PROXYGRAD_HOME": str(tmp_path)})


@pytest.fixture
def app(settings: ServiceSettings) -> Iterator[FastAPI]:
    """The gateway."""
    app = create_app(settings)
    yield app
    app.state.backend.redis.close()


@pytest.fixture
def http(app: FastAPI) -> Http:
    """Requests to the gateway; no worker lives."""
    return Http(app)


@pytest.fixture
def served(http: Http, redis: redis_client.Redis, info: ModelInfo) -> Http:
    """Requests to the gateway while a worker serves `digits` and could not load `broken`."""
    problem = Problem(code="model_unavailable", detail="weights file /m/broken.safetensors is truncated")
    models = [ServedModel(name="digits", info=info), ServedModel(name="broken", problem=problem)]
    catalog.publish(redis, "worker-1", models, ttl_s=60)
    return http


class Player:
    """Plays the worker: moves a job through its states as the gateway sees them.

    ``curve``: of every picture that it delivers.
    """

    curve: tuple[float, ...] = (0.1, 3.5)

    def __init__(self, redis: redis_client.Redis, store: Store, info: ModelInfo) -> None:
        self._redis = redis
        self._store = store
        self._info = info
        self._jobs = Jobs(redis, store)
        publish = compiled("-- @include lib/events\npublish_state(ARGV[1])")
        self._publish = redis.register_script(publish)

    def begin(self, job_id: str, step: int = 5) -> None:
        """The job began one and a half seconds after it was asked for, and has done `step` steps."""
        started_at = self._job(job_id).created_at + 1.5
        self._write(job_id, {"state": "running", "started_at": started_at, "step": step, "activation": 0.25})

    def fail(self, job_id: str) -> None:
        """The job failed."""
        problem = Problem(code="lane_failed", detail="the activation became infinite at step 3")
        self._write(job_id, {"state": "failed", "problem": problem.model_dump_json()})

    def succeed(self, job_id: str) -> None:
        """The job ran for two and a half seconds and has its picture and its result."""
        self.begin(job_id, self._job(job_id).steps)
        done = self._done(self._job(job_id))
        for number in range(done.spec.pictures):
            self._store.put(image_path(job_id, number), drawn(number))
        self._store.put(result_path(job_id), done.model_dump_json().encode())
        record = json.loads(done.model_dump_json())
        texts = {name: json.dumps(record[name]) for name in ("result", "images", "best")}
        self._redis.hset(entry_key(job_id), "status", "finished")
        self._write(job_id, {"state": "succeeded", "finished_at": record["finished_at"], **texts})

    def lose(self, job_id: str, number: int) -> None:
        """Somebody removed an image from the store."""
        self._store.delete(image_path(job_id, number))

    def forget(self, job_id: str) -> None:
        """Redis knows nothing of the job any more, as after a week."""
        self._redis.delete(job_key(job_id))

    def _job(self, job_id: str) -> VisualizationJob:
        job = self._jobs.fetch(job_id)
        assert isinstance(job, VisualizationJob)
        return job

    def _write(self, job_id: str, fields: dict[str, str | int | float]) -> None:
        self._redis.hset(job_key(job_id), items=[part for pair in fields.items() for part in pair])
        if "state" in fields:
            self._publish(args=[job_id])

    def _done(self, job: VisualizationJob) -> VisualizationJob:
        assert job.started_at is not None
        result = Result(
            spec=job.spec,
            achieved_activation=3.5,
            start_activation=0.1,
            stuck=False,
            curve=self.curve,
            steps_done=job.steps,
            width_px=32,
            height_px=32,
            digest=self._info.digest,
            engine_version=self._info.engine_version,
            device="cpu",
            dtype="float32",
            ran_s=2.5,
            steps_per_s=90.0,
        )
        if job.spec.pictures > 1:
            result = result.of(tuple(_told(result, number) for number in range(job.spec.pictures)))
        images = tuple(_described(drawn(number)) for number in range(job.spec.pictures))
        ended = {"state": "succeeded", "finished_at": job.started_at + 2.5}
        return job.model_copy(update={**ended, "result": result, "images": images, "best": result.best})


def _told(result: Result, number: int) -> ImageResult:
    """Each image half as high again as the one before."""
    spec = result.spec
    told = {
        "role": "proxygrad" if number < spec.images else "baseline",
        "seed": spec.seed + number % spec.images,
        "achieved_activation": result.achieved_activation + number / 2,
    }
    if spec.sampler == "langevin":
        told["chain"] = number // (spec.images // spec.lanes)
    return result.image(0).model_copy(update=told)


def _described(png: bytes) -> ImageInfo:
    digest = hashlib.sha256(png).hexdigest()
    return ImageInfo(sha256=digest, size_bytes=len(png), media_type="image/png", width_px=32, height_px=32)


@pytest.fixture
def player(redis: redis_client.Redis, settings: ServiceSettings, info: ModelInfo) -> Player:
    """Somebody to play the worker."""
    return Player(redis, Store.from_url(settings.store_url), info)


@pytest.fixture
def worker(
    redis: redis_client.Redis, settings: ServiceSettings, info: ModelInfo, player: Player
) -> BatchPlayer:
    """The same for batches."""
    return BatchPlayer(redis, Store.from_url(settings.store_url), info, player)
