"""Paths of artifacts in the store.

::

    {id}/result.json          the record, written last and removed first: with it there is a result
    {id}/{name}               an artifact each; of a visualization the images, 0.png, 1.png, …
    {id}/input.npy            what a job needs beside its spec (`workers.jobs.inputs`)
    {id}/checkpoint-{run}     where a run that was interrupted can go on
"""

from __future__ import annotations

import re

_CHECKPOINT = "checkpoint"
_OF_A_JOB = re.compile(r"([0-9a-f]{32})/[^/]+")


def result_path(job_id: str) -> str:
    """The record of a succeeded job: written last, so with it everything is there."""
    return f"{job_id}/result.json"


def artifact_path(job_id: str, name: str) -> str:
    """An artifact; its kind of job gives the names."""
    return f"{job_id}/{name}"


def checkpoint_path(job_id: str, execution_id: str) -> str:
    """The checkpoint of a run."""
    return f"{job_id}/{_CHECKPOINT}-{execution_id}"


def is_checkpoint(path: str) -> bool:
    """Whether it is the path of a checkpoint."""
    return path.partition("/")[2].startswith(_CHECKPOINT)


def job_of(path: str) -> str | None:
    """The id of the job that the artifact at ``path`` belongs to; None for what is no job's."""
    match = _OF_A_JOB.fullmatch(path)
    return match[1] if match else None
