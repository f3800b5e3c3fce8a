"""The engine: one thread that steps every group in turn, while any thread may submit and cancel.

A submitted `Spec` becomes a lane, or several, which join the group they fit in at the next step. Groups take
turns step by step; within a group all lanes advance together. Nothing of a network is touched by any other
thread, so a `Network` needs no lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from proxygrad.engine.capacity import DEFAULT_MAX_LANES, MOST_LANES, out_of_memory
from proxygrad.engine.checkpoint import Checkpoint
from proxygrad.engine.future import Progress, RenderFuture
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import Lane
from proxygrad.engine.rendering import render
from proxygrad.engine.request import RenderRequest
from proxygrad.errors import Canceled, LaneError, NetworkError, OutOfMemory, ProxyGradError
from proxygrad.networks.network import Network
from proxygrad.precision import Precision
from proxygrad.spec import Spec

__all__ = ["Engine", "Progress", "RenderFuture"]

log = logging.getLogger(__name__)


class Engine:
    """Runs visualizations. Use it as a context manager, or call `start` and `close`.

    ``max_lanes``: how many images are optimized at once; further ones wait in order of arrival, and a
    question of more than that runs alone. None: on the CPU `DEFAULT_MAX_LANES`; on CUDA as many in each group
    as free memory takes, found after its first step.
    ``precision``: what the steps compute in, see `proxygrad.precision.chosen`; what is reported is float32.
    """

    def __init__(self, max_lanes: int | None = None, precision: Precision = "auto") -> None:
        if max_lanes is not None and max_lanes < 1:
            raise ValueError(f"max_lanes {max_lanes} must be at least 1")
        self.max_lanes = max_lanes
        self.precision: Precision = precision
        self._waiting: deque[RenderFuture] = deque()
        self._running: dict[Lane, RenderFuture] = {}
        self._groups: dict[GroupKey, Group] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._idle = True
        self._beaten_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="proxygrad-engine", daemon=True)

    def start(self) -> Self:
        """Start the engine's thread."""
        self._beat()
        self._thread.start()
        return self

    def close(self) -> None:
        """End: running and waiting tickets end with `Canceled`. Returns when the thread has ended."""
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
        """Seconds since the engine last finished something (an admission, a slice of a step, a delivery)
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
        """Ask for a visualization, to be ended with `DeadlineExceeded` after ``deadline_s`` seconds.

        With the bytes of a ``checkpoint`` of the same question it goes on from there. Raises at once:
        `InvalidRequest` for an unknown layer or unit, `CheckpointMismatch` for a checkpoint that is damaged
        or of something else.
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
        ticket = RenderFuture(network, resolved, deadline_s, begin_at, self._withdraw)
        with self._changed:
            if self._closing:
                raise Canceled("the engine is closing and takes no more work")
            self._waiting.append(ticket)
            self._wake()
            self._changed.notify()
        return ticket

    def _run(self) -> None:
        ended: Exception = Canceled("the engine was closed")
        try:
            while self._await_work():
                self._admit()
                self._advance()
        except Exception as error:
            log.exception("the engine's thread has failed")
            ended = _explained(error)
        with self._changed:
            self._closing = self._idle = True
        for ticket in (*self._running.values(), *self._waiting):
            ticket._resolve(ended)

    def _advance(self) -> None:
        """One step of every group. On its own, so that an idle thread refers to no group and no network."""
        for group in list(self._groups.values()):
            self._drop_stopped(group)
            if group.lanes:
                self._step(group)
            if not group.lanes:
                del self._groups[group.key]

    def _await_work(self) -> bool:
        with self._changed:
            while not (self._closing or self._waiting or self._running):
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

    def _withdraw(self, ticket: RenderFuture) -> None:
        """In any thread: a ticket that was canceled need not wait for a lane."""
        stopped = ticket._stopped()
        if stopped is not None and self._take(ticket):
            ticket._resolve(stopped)

    def _take(self, ticket: RenderFuture) -> bool:
        """Take a ticket off the queue; False when somebody else has done so."""
        with self._changed:
            if ticket not in self._waiting:
                return False
            self._waiting.remove(ticket)
            return True

    def _admit(self) -> None:
        """In order of arrival; what does not fit in its own group yet does not hold up other groups.

        What needs more lanes than there are holds up what came later, or it would never get them; one that
        needs more than `max_lanes` runs when nothing else does.
        """
        with self._changed:
            waiting = list(self._waiting)
        full, held = set[GroupKey](), False
        for ticket in waiting:
            stopped = ticket._stopped()
            if stopped is not None:
                if self._take(ticket):
                    ticket._resolve(stopped)
                continue
            lanes = len(self._running) + ticket.spec.lanes
            held = held or (bool(self._running) and lanes > self._most(ticket.network))
            if held:
                continue
            try:
                self._join(ticket, full)
            except Exception as error:
                self._take(ticket)
                ticket._resolve(_explained(error))
            self._beat()

    def _most(self, network: Network) -> int:
        """Lanes over all groups."""
        on_cuda = network.device.type == "cuda"
        return self.max_lanes or (MOST_LANES if on_cuda else DEFAULT_MAX_LANES)

    def _join(self, ticket: RenderFuture, full: set[GroupKey]) -> None:
        """Put a ticket's lanes into their group, if that has room; else note that it is ``full``."""
        party = ticket._party = ticket._party or RenderRequest.of(ticket.network, ticket.spec, self.precision)
        group = self._groups.get(party.key)
        if party.key in full:
            return
        if group and self.max_lanes is None and group.full(DEFAULT_MAX_LANES, len(party.lanes)):
            full.add(party.key)
            return
        if not self._take(ticket):
            return
        group = group or Group(party.key)
        states = ticket._begin_at.states if ticket._begin_at else [None] * len(party.lanes)
        try:
            for lane, state in zip(party.lanes, states, strict=True):
                group.join(lane, state)
        except Exception:
            self._leave(group, party)
            raise
        ticket._start()
        self._groups[party.key] = group
        self._running.update(dict.fromkeys(party.lanes, ticket))

    def _leave(self, group: Group, party: RenderRequest) -> None:
        """Take lanes out, whether they have ended or not, and whether or not all of them are in."""
        for lane in party.lanes:
            group.leave(lane)
            self._running.pop(lane, None)

    def _under_way(self, lanes: Sequence[Lane]) -> list[tuple[RenderFuture, RenderRequest]]:
        """The tickets of these lanes, each once."""
        tickets = dict.fromkeys(self._running[lane] for lane in lanes)
        return [(ticket, ticket._party) for ticket in tickets if ticket._party is not None]

    def _drop_stopped(self, group: Group) -> None:
        for ticket, party in self._under_way(group.lanes):
            stopped = ticket._stopped()
            if stopped is not None:
                self._leave(group, party)
                ticket._resolve(stopped)

    def _step(self, group: Group) -> None:
        lanes = list(group.lanes)
        try:
            ended = group.step(self._beat)
        except Exception as error:
            log.exception("a step of %d lanes at %s failed", len(lanes), ", ".join(group.key.layers))
            for ticket, party in self._under_way(lanes):
                self._leave(group, party)
                ticket._resolve(_explained(error))
            return
        finally:
            self._beat()
        for ticket, party in self._under_way(lanes):
            ticket._follow(party)
            if any(lane in ended for lane in party.lanes):  # the others with it, which have failed or not
                self._leave(group, party)
                self._finish(ticket, party)
                self._beat()
            else:
                self._grant(ticket, party, group)

    def _grant(self, ticket: RenderFuture, party: RenderRequest, group: Group) -> None:
        """The checkpoint that somebody waits for; none, if it cannot be made."""
        if not ticket._wished:
            return
        taken = None
        try:
            states = [group.state(lane) for lane in party.lanes]
            taken = Checkpoint.of(ticket.spec, ticket.network.info, states, ticket._ran_s())
        except Exception:
            log.exception("no checkpoint of a lane at %s", ", ".join(group.key.layers))
        ticket._grant(taken)

    def _finish(self, ticket: RenderFuture, party: RenderRequest) -> None:
        try:
            ticket._resolve(
                party.error or render(ticket.network, ticket.spec, party.lanes, ticket._ran_s(), self._beat)
            )
        except Exception as error:
            ticket._resolve(_explained(error))


def _explained(error: Exception) -> ProxyGradError:
    """Ours as it is; anything else becomes a `LaneError` that names it."""
    if isinstance(error, ProxyGradError):
        return error
    kind = OutOfMemory if out_of_memory(error) else LaneError
    explained = kind(f"{type(error).__name__}: {error}")
    explained.__cause__ = error
    return explained
