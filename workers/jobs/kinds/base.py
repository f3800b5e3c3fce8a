"""What a kind of job is to queue, store, webhooks and gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from proxygrad.protocol.jobs import ArtifactInfo
from proxygrad.protocol.requests import Priority
from proxygrad.spec import ModelInfo
from workers.jobs.job import Job, JobSpec


class RequestedSpec(JobSpec, Protocol):
    """A spec as it is requested: with defaults that depend on the model."""

    def resolve(self, model: ModelInfo, /) -> JobSpec:
        """The spec checked against the model, with its defaults filled in. Raises `InvalidRequest`."""


class JobRequest(Protocol):
    """A spec with job options (`proxygrad.protocol.requests.JobOptions`): the body of a request."""

    @property
    def spec(self) -> RequestedSpec: ...  # noqa: D102
    @property
    def priority(self) -> Priority: ...  # noqa: D102
    @property
    def deadline_s(self) -> float | None: ...  # noqa: D102
    @property
    def webhook(self) -> str | None: ...  # noqa: D102


class ArtifactIndex(Protocol):
    """The part of a stored record that describes its artifacts."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def artifacts(self) -> Mapping[str, ArtifactInfo]: ...  # noqa: D102
    @classmethod
    def model_validate_json(cls, json_data: bytes, /) -> ArtifactIndex: ...  # noqa: D102


@dataclass(frozen=True)
class JobKind:
    """One kind of job.

    ``name`` is in records, in the id (`proxygrad.spec.identity`) and begins the types of webhook events;
    ``path`` is the resource of the interface; ``record`` the type of its records; ``index`` reads the
    artifacts of a stored record, where that is faster than reading the record.
    """

    name: str
    path: str
    record: type[Job]
    index: type[ArtifactIndex] | None = None

    def owns(self, name: str) -> bool:
        """Whether a record that names this kind is of it."""
        return name == self.name

    def capability(self, model: str) -> str:
        """What a worker must offer to run a job of this kind: the queue has an index for each.

        A worker takes only jobs whose capability it offers, so that a job of a kind that is new to it waits
        for another worker. No name of a model has a slash.
        """
        return f"{self.name}/{model}"

    def exact_capability(self, model: ModelInfo) -> str:
        """What only workers offer that serve the model with the same weights, by the same method.

        Jobs wait by `capability`; one that a worker with other weights met waits by this from then on.
        """
        return f"{self.capability(model.name)}@{model.version}"

    def event_data(self, state: str, activation: float | None) -> Mapping[str, Any]:
        """What a webhook event of a job that ended in ``state`` contains beside the state."""
        return {}
