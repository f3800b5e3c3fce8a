"""What is known of a visualization or a batch without asking: the same for both kinds of client."""

from __future__ import annotations

from proxygrad.protocol import batches
from proxygrad.protocol import visualizations as answers
from proxygrad.protocol.batches import BatchCounts, BatchState
from proxygrad.protocol.problems import Problem
from proxygrad.protocol.visualizations import State
from proxygrad.spec import Result, Spec, VisualizationTemplate
from service.client._async.batches import AskedBatch
from service.client._async.visualizations import Asked


class KnownVisualization:
    """The last that was heard of a visualization."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.state}>"

    @property
    def answer(self) -> answers.Visualization:
        """The whole document, as of the last answer or event."""
        return self._asked.answer

    @property
    def id(self) -> str:
        """32 hex digits; the same question about the same weights has the same one."""
        return self.answer.id

    @property
    def state(self) -> State:
        """`queued`, `running`, `succeeded`, `failed` or `canceled`."""
        return self.answer.state

    @property
    def ended(self) -> bool:
        """Whether the state will not change by itself any more."""
        return self.answer.ended

    @property
    def spec(self) -> Spec:
        """The question with every default that depends on the model filled in."""
        return self.answer.spec

    @property
    def progress(self) -> answers.Progress:
        """How far the ascent has come."""
        return self.answer.progress

    @property
    def problem(self) -> Problem | None:
        """Why there is no result; None unless failed or canceled."""
        return self.answer.problem

    @property
    def result(self) -> Result:
        """What came out. Raises `Failed` or `Canceled`, and `LookupError` before it has ended."""
        self._asked.check()
        if self.answer.result is None:
            raise LookupError(f"visualization {self.id} is {self.state}: wait for its result")
        return self.answer.result

    @property
    def answered_at_once(self) -> bool:
        """True when asking found the answer in the store: nothing was computed."""
        return self._asked.at_once


class KnownBatch:
    """The last that was heard of a batch."""

    def __init__(self, asked: AskedBatch) -> None:
        self._asked = asked

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.state}>"

    @property
    def answer(self) -> batches.Batch:
        """The whole document, as of the last answer."""
        return self._asked.answer

    @property
    def id(self) -> str:
        """32 hex digits."""
        return self.answer.id

    @property
    def state(self) -> BatchState:
        """`running`, `succeeded`, `failed` or `canceled`."""
        return self.answer.state

    @property
    def ended(self) -> bool:
        """Whether the state will not change by itself any more."""
        return self.answer.ended

    @property
    def template(self) -> VisualizationTemplate:
        """What is asked of every unit."""
        return self.answer.template

    @property
    def counts(self) -> BatchCounts:
        """How many units are in each state."""
        return self.answer.counts

    @property
    def problem(self) -> Problem | None:
        """Why units were not even put into the queue; None where all were."""
        return self.answer.problem
