"""What the chaos left, beside a run that nothing disturbs: the same values, whatever ran beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from PIL import Image

from proxygrad.attribution.explanation import explain, pixels_of
from proxygrad.engine.engine import Engine
from proxygrad.models import Catalog
from proxygrad.networks.network import Network
from proxygrad.spec import Spec
from workers.jobs.inputs import INPUT, REFERENCES
from workers.jobs.job import Job
from workers.jobs.kinds.attribution import CONTRIBUTIONS, AttributionJob
from workers.jobs.kinds.visualization import image_name
from workers.storage.paths import artifact_path
from workers.storage.store import Store

#: Of ascents, which are most of the jobs, so many are computed again.
ASCENTS = 100


def compare(succeeded: Sequence[Job], store: Store) -> tuple[int, list[str]]:
    """How many jobs were computed again, and the files that differ."""
    torch.set_num_threads(1)  # as the workers
    network = Catalog.from_file().load("digits")
    compared, ascents, differing = 0, 0, []
    with Engine() as engine:
        for job in succeeded:
            if isinstance(job, AttributionJob):
                files = _attribution(network, job, store)
            elif isinstance(job.spec, Spec) and (job.spec.sampler == "langevin" or ascents < ASCENTS):
                ascents += job.spec.sampler == "ascent"
                images = engine.submit(network, job.spec).result().images
                files = {image_name(number): png for number, png in enumerate(images)}
            else:
                continue
            compared += 1
            for name, data in files.items():
                path = artifact_path(job.id, name)
                if _values(name, store.get(path)) != _values(name, data):
                    differing.append(f"{path} is not what a run in peace makes of it")
    return compared, differing


def _attribution(network: Network, job: AttributionJob, store: Store) -> dict[str, bytes]:
    picture, sent = (store.get(artifact_path(job.id, name)) for name in (INPUT, REFERENCES))
    if picture is None or (sent is None and job.spec.reference_images is not None):
        return {}
    references = None if sent is None else pixels_of(sent)
    return dict(explain(network, pixels_of(picture), job.spec, references).files)


def _values(name: str, data: bytes | None) -> bytes | None:
    """The pixels of a picture, whose text says when it was made; all of any other file."""
    if data is None or name == CONTRIBUTIONS:
        return data
    with Image.open(io.BytesIO(data)) as image:
        return image.tobytes()
