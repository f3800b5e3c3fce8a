"""The engine: one thread that steps every group in turn, while any thread may submit and cancel.

A submitted `Spec` becomes a lane, which joins the group it fits in at the next step. Groups take turns
step by step; within a group all lanes advance together. Nothing of a network is touched by any other
thread, so a `Network` needs no lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from proxygrad.delivery import Rendering, deliver
from proxygrad.errors import Cancelled, LaneError, NetworkError, ProxyGradError
from proxygrad.group import Group, GroupKey
from proxygrad.lane import Lane
from proxygrad.network import Network
from proxygrad.objectives import from_spec
from proxygrad.spec import Spec

log = logging.getLogger(__name__)

#: Lanes stepped at once over all groups. Enough to fill a CPU; a device's own capacity is found later.
DEFAULT_MAX_LANES = 16


@dataclass(frozen=True)
class Progress:
    """Steps done, steps asked for, and the latest activation, which is None before the first step."""

    step: int
    steps: int
    activation: float | None


class Ticket:
    """What `Engine.submit` returns: progress, the way to cancel, and in the end the rendering."""

    def __init__(self, network: Network, spec: Spec) -> None:
        self.network = network
        self.spec = spec
        self.cancelled = threading.Event()
        self.progress = Progress(0, spec.steps, None)
        self._future: Future[Rendering] = Future()
        self._started_at: float | None = None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the lane has ended, at most ``timeout_s`` seconds; True when it has."""
        with suppress(FutureTimeout):
            self._future.exception(timeout_s)
        return self._future.done()

    def cancel(self) -> None:
        """Ask the lane to stop at its next step; `result` then raises `Cancelled`. No effect once ended."""
        self.cancelled.set()

    def result(self, timeout_s: float | None = None) -> Rendering:
        """The rendering, as soon as it is there.

        Raises what ended the lane otherwise: `LaneError`, `Cancelled`, a `BadRequest` or a `NetworkError`;
        and `TimeoutError` after ``timeout_s`` seconds.
        """
        return self._future.result(timeout_s)

    def _start(self) -> None:
        self._started_at = time.monotonic()

    def _ran_s(self) -> float:
        return 0.0 if self._started_at is None else time.monotonic() - self._started_at

    def _follow(self, lane: Lane) -> None:
        self.progress = Progress(lane.step, lane.settings.steps, lane.curve[-1] if lane.curve else None)

    def _resolve(self, outcome: Rendering | Exception) -> None:
        with suppress(InvalidStateError):
            if isinstance(outcome, Rendering):
                self._future.set_result(outcome)
            else:
                self._future.set_exception(outcome)


class Engine:
    """Runs visualizations. Use it as a context manager, or call `start` and `close`.

    ``max_lanes``: how many images are optimised at once; further ones wait in order of arrival.
    """

    def __init__(self, max_lanes: int = DEFAULT_MAX_LANES) -> None:
        if max_lanes < 1:
            raise ValueError(f"max_lanes {max_lanes} must be at least 1")
        self.max_lanes = max_lanes
        self._waiting: deque[Ticket] = deque()
        self._running: dict[Lane, Ticket] = {}
        self._groups: dict[GroupKey, Group] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="proxygrad-engine", daemon=True)

    def start(self) -> Self:
        """Start the engine's thread."""
        self._thread.start()
        return self

    def close(self) -> None:
        """End: running and waiting tickets end with `Cancelled`. Returns when the thread has ended."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, network: Network, spec: Spec) -> Ticket:
        """Ask for a visualization. Raises `BadRequest` at once for an unknown layer or unit."""
        if network.input_shape[0] > 3:
            raise NetworkError(
                f"model {network.name!r} takes {network.input_shape[0]} channels; a PNG has 1 or 3"
            )
        named = spec.model_copy(update={"layer": network.layer(spec.layer).name})
        ticket = Ticket(network, named.resolve(network.info))
        with self._changed:
            if self._closing:
                raise Cancelled("the engine is closing and takes no more work")
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def _run(self) -> None:
        while self._await_work():
            self._admit()
            for group in list(self._groups.values()):
                self._drop_cancelled(group)
                if group.lanes:
                    self._step(group)
                if not group.lanes:
                    del self._groups[group.key]
        for ticket in (*self._running.values(), *self._waiting):
            ticket._resolve(Cancelled("the engine was closed"))

    def _await_work(self) -> bool:
        with self._changed:
            while not (self._closing or self._waiting or self._running):
                self._changed.wait()
            return not self._closing

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self.max_lanes:
            ticket = self._waiting.popleft()
            if ticket.cancelled.is_set():
                ticket._resolve(Cancelled("cancelled before its first step"))
                continue
            try:
                self._join(ticket)
            except Exception as error:
                ticket._resolve(_explained(error))

    def _join(self, ticket: Ticket) -> None:
        network, spec = ticket.network, ticket.spec
        size = (spec.size_px, spec.size_px) if spec.size_px else network.input_shape[1:]
        objective = from_spec(spec).at({spec.layer: network.layer_shape(spec.layer, size)})
        lane = Lane(spec, objective)
        key = GroupKey.of(network, lane, size)
        ticket._start()
        self._groups.setdefault(key, Group(key)).join(lane)
        self._running[lane] = ticket

    def _drop_cancelled(self, group: Group) -> None:
        for lane in list(group.lanes):
            if self._running[lane].cancelled.is_set():
                group.leave(lane)
                self._running.pop(lane)._resolve(Cancelled(f"cancelled after step {lane.step}"))

    def _step(self, group: Group) -> None:
        try:
            ended = group.step()
        except Exception as error:
            log.exception("a step of %d lanes at %s failed", len(group.lanes), ", ".join(group.key.layers))
            for lane in list(group.lanes):
                group.leave(lane)
                self._running.pop(lane)._resolve(_explained(error))
            return
        for lane in (*group.lanes, *ended):
            self._running[lane]._follow(lane)
        for lane in ended:
            self._finish(self._running.pop(lane), lane)

    def _finish(self, ticket: Ticket, lane: Lane) -> None:
        try:
            ticket._resolve(lane.error or deliver(ticket.network, ticket.spec, lane, ticket._ran_s()))
        except Exception as error:
            ticket._resolve(_explained(error))


def _explained(error: Exception) -> ProxyGradError:
    """Ours as it is; anything else becomes a `LaneError` that names it."""
    if isinstance(error, ProxyGradError):
        return error
    explained = LaneError(f"{type(error).__name__}: {error}")
    explained.__cause__ = error
    return explained
