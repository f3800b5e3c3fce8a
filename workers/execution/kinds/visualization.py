"""The computation of a visualization: rendered by the engine, stored as PNGs that say what they are.

The images that an earlier run stored count, whichever run each is of, and the result is made of what they
say. A file that is damaged, or of another job, does not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property

from proxygrad.png import annotate_png, read_whole
from proxygrad.protocol.visualizations import ImageInfo
from proxygrad.spec import Result
from workers.execution.compute import render
from workers.execution.context import RenderingProtocol
from workers.execution.run import JobRun
from workers.jobs.kinds.visualization import VisualizationJob, image_name


def compute(run: JobRun, job: VisualizationJob) -> Images:
    """Render the images of ``job``. Raises what `workers.execution.compute.render` raises."""
    return Images(job, render(run, job))


class Images:
    """The images of a run, annotated."""

    def __init__(self, job: VisualizationJob, rendering: RenderingProtocol) -> None:
        self._job = job
        self._rendering = rendering
        self._results = {image_name(number): self._result(number) for number in range(len(rendering.images))}

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """PNGs with text chunks that say what they are, by name."""
        pngs = zip(self._results, self._rendering.images, strict=True)
        return {name: self._annotated(name, png) for name, png in pngs}

    def accepts(self, name: str, stored: bytes) -> bool:
        """Whether it is whole, and of the same job, number and weights."""
        return self._read(name, stored) is not None

    def fields(self, stored: Mapping[str, bytes]) -> Mapping[str, object]:
        """Result and images, from what the images say of themselves."""
        results = [self._stored_result(name, png) for name, png in stored.items()]
        result = results[0]
        if len(results) > 1:
            result = result.of(tuple(each.image(0) for each in results))
        pngs = zip(stored.values(), results, strict=True)
        return {
            "step": result.steps_done,
            "activation": result.achieved_activation,
            "result": result,
            "images": tuple(_describe(png, each) for png, each in pngs),
            "best": result.best,
        }

    def _result(self, number: int) -> Result:
        """The result of one image: as if it were the only one."""
        result = self._rendering.result
        return result.of((result.image(number),)) if len(self._rendering.images) > 1 else result

    def _stored_result(self, name: str, png: bytes) -> Result:
        """What a stored image says of itself; one that says nothing is this run's."""
        own = self._results[name]
        return own if png is self.files[name] else self._read(name, png) or own

    def _read(self, name: str, png: bytes) -> Result | None:
        try:
            text = read_whole(png)
            result = Result.model_validate_json(text["result"])
        except (ValueError, KeyError):
            return None
        fits = self._labels(name).items() <= text.items() and result.digest == self._results[name].digest
        return result if fits else None

    def _annotated(self, name: str, png: bytes) -> bytes:
        result = self._results[name]
        text = {
            **self._labels(name),
            "achieved_activation": repr(result.achieved_activation),
            "result": result.model_dump_json(),
        }
        return annotate_png(png, text)

    def _labels(self, name: str) -> dict[str, str]:
        """The text of an image that says which one it is."""
        number, spec = name.removesuffix(".png"), self._results[name].spec
        return {"id": self._job.id, "image": number, "spec": spec.model_dump_json()}


def _describe(png: bytes, result: Result) -> ImageInfo:
    return ImageInfo(
        sha256=hashlib.sha256(png).hexdigest(),
        size_bytes=len(png),
        media_type="image/png",
        width_px=result.width_px,
        height_px=result.height_px,
    )
