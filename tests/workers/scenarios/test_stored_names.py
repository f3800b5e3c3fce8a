"""Golden names: files in the store, the keys of `result.json` and the text chunks of PNGs keep their names.

Programs read them long after they were written. The test fails when one is renamed, added or dropped; where
that is intended, change the list and say so in the changelog.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="a slot runs the task, which needs torch")

from PIL import Image

from tests.support.artifacts import names
from tests.support.counting_engine import CountingEngine
from tests.support.eventually import ended, until
from tests.support.model_on_paper import MODEL, question
from tests.support.worker_in_process import working
from workers.execution import checkpoints
from workers.jobs.repository import Job, Jobs
from workers.storage.store import Store

pytestmark = pytest.mark.engine

#: Two images and two of the comparison, while the job runs and after it.
RUNNING = ["{id}/checkpoint-{id}"]
ENDED = ["{id}/0.png", "{id}/1.png", "{id}/2.png", "{id}/3.png", "{id}/result.json"]

#: Text chunks of a PNG, in their order.
PNG_TEXT = ["id", "image", "spec", "achieved_activation", "result"]

#: Keys of `result.json`, in their order; below them those of the objects in it.
RECORD = """
id
kind
spec
  preset
  sampler
  langevin
  proxy
  slope
  slope_end
  slope_hold
  slope_end_at
  starts
  trial_steps
  spread_max_pool
  parameterization
  update
  gaf
  gaf_alpha
  gaf_beta
  robustness
  total_variation
  l2
  blur_px
  steps
  step_size
  start_noise
  size_px
  seed
  model
  layer
  objective
  position
  images
  diversity
  compare
  unit
state
created_at
started_at
finished_at
step
steps
activation
worker
losses
result
  achieved_activation
  start_activation
  robust_activation
  rank
  rank_of
  class_probabilities
  stuck
  curve
  steps_done
  starts
  spec
    preset
    sampler
    langevin
    proxy
    slope
    slope_end
    slope_hold
    slope_end_at
    starts
    trial_steps
    spread_max_pool
    parameterization
    update
    gaf
    gaf_alpha
    gaf_beta
    robustness
    total_variation
    l2
    blur_px
    steps
    step_size
    start_noise
    size_px
    seed
    model
    layer
    objective
    position
    images
    diversity
    compare
    unit
  best
  images
    achieved_activation
    start_activation
    robust_activation
    rank
    rank_of
    class_probabilities
    stuck
    curve
    steps_done
    starts
    role
    seed
    chain
  baseline
    image
    achieved_activation
    start_activation
    stuck
  baseline_activation
  sampling
  width_px
  height_px
  digest
  engine_version
  device
  kernels
  dtype
  ran_s
  steps_per_s
problem
cost
images
  sha256
  size_bytes
  media_type
  width_px
  height_px
best
"""


def test_files_records_and_pngs(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_S", 0.0)
    spec = question(steps=1000).model_copy(update={"images": 2, "compare": True})
    job, _ = submit(jobs, spec, MODEL)
    engine = CountingEngine(step_s=0.02)
    with working(redis, store, engine):
        until(lambda: has_checkpoint(jobs, job))
        assert files(store) == RUNNING
        engine.tickets[0].finish()
        ended(jobs, job.id)
    assert files(store) == ENDED
    assert outline(json.loads(store.get(f"{job.id}/result.json") or b"")) == RECORD.strip().splitlines()
    with Image.open(io.BytesIO(store.get(f"{job.id}/0.png") or b"")) as picture:
        assert list(picture.info) == PNG_TEXT


def has_checkpoint(jobs: Jobs, job: Job) -> bool:
    now = jobs.fetch(job.id)
    return now is not None and now.checkpoint is not None


def files(store: Store) -> list[str]:
    return sorted(re.sub(r"\b[0-9a-f]{32}\b", "{id}", name) for name in names(store))


def outline(record: dict[str, Any], indent: str = "") -> list[str]:
    """The keys, and indented those of what is in them; of several objects those of the first."""
    lines = []
    for key, value in record.items():
        lines.append(indent + key)
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, dict):
            lines += outline(first, indent + "  ")
    return lines
