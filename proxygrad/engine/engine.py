"""The engine: continuous batching in one thread, which steps every group in turn.

Any thread may submit and cancel. A submitted `Spec` becomes a lane, or several, which join the group they fit
in at the next step. Groups take turns step by step; within a group all lanes advance together. A request of
more lanes than are stepped at once has a group of its own, whose turn is a slice of a step. No other thread
touches a network, so a `Network` needs no lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from proxygrad.engine.capacity import DEFAULT_MAX_LANES, MOST_LANES, out_of_memory
from proxygrad.engine.checkpoint import Checkpoint
from proxygrad.engine.future import RenderFuture
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import Lane
from proxygrad.engine.rendering import render
from proxygrad.engine.request import RenderRequest
from proxygrad.errors import LaneError, NetworkError, OutOfMemory, ProxyGradError, RenderCanceled
from proxygrad.networks.network import Network
from proxygrad.precision import Precision
from proxygrad.spec import Spec

log = logging.getLogger(__name__)

T = TypeVar("T")


class Engine:
    """Runs visualizations. Use it as a context manager, or call `start` and `close`.

    ``max_lanes``: how many images are optimized at once; further ones wait in order of arrival. A request of
    more than that goes on beside the others, that many of its images at a time. None: on the CPU
    `DEFAULT_MAX_LANES`; on CUDA as many in each group as free memory takes, found after its first step.
    ``precision``: what the steps compute in, see `proxygrad.precision.chosen`; what is reported is float32.
    """

    def __init__(self, max_lanes: int | None = None, precision: Precision = "auto") -> None:
        if max_lanes is not None and max_lanes < 1:
            raise ValueError(f"max_lanes {max_lanes} must be at least 1")
        self.max_lanes = max_lanes
        self.precision: Precision = precision
        self._waiting: deque[RenderRequest] = deque()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._running: dict[Lane, RenderRequest] = {}
        self._oversized: RenderRequest | None = None
        self._groups: dict[GroupKey, Group] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._idle = True
        self._owed_s = 0.0  # what lanes are to have before the next call
        self._beaten_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="proxygrad-engine", daemon=True)

    def start(self) -> Self:
        """Start the engine's thread."""
        self._beat()
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop: running and waiting requests end with `RenderCanceled`. Returns when the thread has ended."""
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

    @property
    def stalled_s(self) -> float:
        """Seconds since the engine last finished something (an admission, a slice of a step, a rendering)
        while it has work to do; 0 when it has none. Waits for nothing.
        """
        return 0.0 if self._idle else time.monotonic() - self._beaten_at

    def submit(
        self,
        network: Network,
        spec: Spec,
        *,
        deadline_s: float | None = None,
        checkpoint: bytes | None = None,
    ) -> RenderFuture:
        """Submit a request; it ends with `DeadlineExceeded` after ``deadline_s`` seconds.

        With the bytes of a ``checkpoint`` of the same request it resumes from there. Raises at once:
        `InvalidRequest` for an unknown layer or unit, `CheckpointMismatch` for a checkpoint that is damaged
        or of another request.
        """
        if network.input_shape[0] not in (1, 3):
            raise NetworkError(
                f"model {network.name!r} takes {network.input_shape[0]} channels; a PNG has 1 or 3"
            )
        named = spec.model_copy(update={"layer": network.layer(spec.layer).name})
        resolved = named.resolve(network.info)
        begin_at = None if checkpoint is None else Checkpoint.from_bytes(checkpoint)
        if begin_at is not None:
            begin_at.check(resolved, network.info)
        request = RenderRequest(network, resolved, deadline_s, begin_at)
        with self._changed:
            if self._closing:
                raise RenderCanceled("the engine is closing and takes no more work")
            self._waiting.append(request)
            self._wake()
            self._changed.notify()
        return RenderFuture(request, self._withdraw)

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run ``function`` in the engine's thread, between steps, where it may use any network.

        The future has its result or its error, as it was raised. Until it runs it may be canceled. Lanes wait
        meanwhile, and `stalled_s` counts; before the next call they have as long as this one took. Raises
        `RenderCanceled` when the engine is closing.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._closing:
                raise RenderCanceled("the engine is closing and takes no more work")
            self._calls.append((future, function))
            self._wake()
            self._changed.notify()
        return future

    def _run(self) -> None:
        ended: Exception = RenderCanceled("the engine was closed")
        try:
            while self._await_work():
                self._call_next()
                self._admit()
                self._advance()
        except Exception as error:
            log.exception("the engine's thread has failed")
            ended = _explained(error)
        with self._changed:
            self._closing = self._idle = True
        for request in (*self._running.values(), *self._waiting):
            request.resolve(ended)
        for future, _ in self._calls:
            if future.set_running_or_notify_cancel():
                future.set_exception(ended)

    def _call_next(self) -> None:
        """One call, once lanes had as long as the one before took: calls and lanes share the time evenly."""
        with self._changed:
            if not self._calls or (self._running and self._owed_s > 0):
                return
            future, function = self._calls.popleft()
        if not future.set_running_or_notify_cancel():
            return
        self._beat()
        began_s = self._beaten_at
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)
        finally:
            self._beat()
            self._owed_s = self._beaten_at - began_s

    def _advance(self) -> None:
        """A turn of every group: a step, or a slice of one.

        On its own, so that an idle thread refers to no group and no network.
        """
        began_s = time.monotonic()
        for group in list(self._groups.values()):
            self._drop_stopped(group)
            if group.lanes:
                self._step(group)
            if not group.lanes:
                del self._groups[group.key]
        self._owed_s -= time.monotonic() - began_s

    def _await_work(self) -> bool:
        with self._changed:
            while not (self._closing or self._waiting or self._running or self._calls):
                self._idle = True
                self._changed.wait()
            self._wake()
            return not self._closing

    def _wake(self) -> None:
        """With the lock held: there is work; if there was none, the clock of `stalled_s` starts now."""
        if self._idle:
            self._beat()
            self._idle = False

    def _beat(self) -> None:
        self._beaten_at = time.monotonic()

    def _withdraw(self, request: RenderRequest) -> None:
        """In any thread: a request that was canceled need not wait for lanes."""
        stopped = request.stop_error
        if stopped is not None and self._take(request):
            request.resolve(stopped)

    def _take(self, request: RenderRequest) -> bool:
        """Take a request off the queue; False when another thread has done so."""
        with self._changed:
            if request not in self._waiting:
                return False
            self._waiting.remove(request)
            return True

    def _admit(self) -> None:
        """In order of arrival; what does not fit in its own group yet does not hold up other groups.

        A request for more lanes than are free holds up what came later, or it would never get them. One that
        needs more than `max_lanes` takes none of them, and another of its kind waits for it alone.
        """
        with self._changed:
            waiting = list(self._waiting)
        full, held = set[GroupKey](), False
        for request in waiting:
            stopped = request.stop_error
            if stopped is not None:
                if self._take(request):
                    request.resolve(stopped)
                continue
            limit, running = self._lane_limit(request.network), len(self._running)
            if request.spec.lanes > limit:
                if self._oversized is not None:
                    continue
            else:
                running -= len(self._oversized.lanes) if self._oversized else 0
                held = held or (running > 0 and running + request.spec.lanes > limit)
                if held:
                    continue
            try:
                self._join(request, full)
            except Exception as error:
                self._take(request)
                request.resolve(_explained(error))
            self._beat()

    def _lane_limit(self, network: Network) -> int:
        """Most lanes over all groups."""
        on_cuda = network.device.type == "cuda"
        return self.max_lanes or (MOST_LANES if on_cuda else DEFAULT_MAX_LANES)

    def _join(self, request: RenderRequest, full: set[GroupKey]) -> None:
        """Put a request's lanes into their group, if that has room; else add it to ``full``."""
        most = self._lane_limit(request.network)
        oversized = request.spec.lanes > most
        key = request.prepare(self.precision)
        if oversized:
            key = replace(key, alone=id(request))
        group = self._groups.get(key)
        if key in full:
            return
        if group and self.max_lanes is None and group.full(DEFAULT_MAX_LANES, len(request.lanes)):
            full.add(key)
            return
        if not self._take(request):
            return
        group = group or Group(key, most=most if oversized else None)
        try:
            for lane, state in zip(request.lanes, request.states, strict=True):
                group.join(lane, state)
        except Exception:
            self._leave(group, request)
            raise
        request.start()
        self._oversized = request if oversized else self._oversized
        self._groups[key] = group
        self._running.update(dict.fromkeys(request.lanes, request))

    def _leave(self, group: Group, request: RenderRequest) -> None:
        """Take lanes out, whether they have ended or not, and whether or not all of them are in."""
        for lane in request.lanes:
            group.leave(lane)
            self._running.pop(lane, None)
        if request is self._oversized:
            self._oversized = None

    def _requests_of(self, lanes: Sequence[Lane]) -> list[RenderRequest]:
        """The requests of these lanes, each once."""
        return list(dict.fromkeys(self._running[lane] for lane in lanes))

    def _drop_stopped(self, group: Group) -> None:
        for request in self._requests_of(group.lanes):
            stopped = request.stop_error
            if stopped is not None:
                self._leave(group, request)
                request.resolve(stopped)

    def _step(self, group: Group) -> None:
        lanes = list(group.lanes)
        try:
            ended = group.step(self._beat) if group.key.alone is None else group.turn(self._beat)
        except Exception as error:
            log.exception("a step of %d lanes at %s failed", len(lanes), ", ".join(group.key.layers))
            for request in self._requests_of(lanes):
                self._leave(group, request)
                request.resolve(_explained(error))
            return
        finally:
            self._beat()
        if ended is None:
            return
        requests = self._requests_of(lanes)
        for lane in lanes:
            if lane.dropped:
                self._running.pop(lane, None)
        for request in requests:
            request.follow()
            if any(lane in ended for lane in request.lanes):  # the others with it, failed or not
                self._leave(group, request)
                self._finish(request)
                self._beat()
            elif request.wants_checkpoint:
                self._checkpoint(request, group)

    def _checkpoint(self, request: RenderRequest, group: Group) -> None:
        """Deliver the checkpoint that is waited for; none, if it cannot be made."""
        taken = None
        try:
            states = {number: group.state(lane) for number, lane in request.numbered_lanes}
            taken = Checkpoint.of(request.spec, request.network.info, states, request.ran_s)
        except Exception:
            log.exception("no checkpoint of a lane at %s", ", ".join(group.key.layers))
        request.deliver_checkpoint(taken)

    def _finish(self, request: RenderRequest) -> None:
        try:
            request.resolve(
                request.lane_error
                or render(request.network, request.spec, request.lanes, request.ran_s, self._beat)
            )
        except Exception as error:
            request.resolve(_explained(error))


def _explained(error: Exception) -> ProxyGradError:
    """A deliberate error as it is; anything else becomes a `LaneError` that names it."""
    if isinstance(error, ProxyGradError):
        return error
    kind = OutOfMemory if out_of_memory(error) else LaneError
    explained = kind(f"{type(error).__name__}: {error}")
    explained.__cause__ = error
    return explained
