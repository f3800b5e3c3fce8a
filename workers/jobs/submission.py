"""How a question becomes a job, or joins one: one script, so that of many who ask at once one creates it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import redis
from redis.exceptions import OutOfMemoryError

from proxygrad.protocol.requests import ANONYMOUS, Priority, VisualizationRequest
from proxygrad.spec import ModelInfo, Spec
from workers.broker import queue
from workers.broker.pipeline import Operation, RedisCommand
from workers.broker.scripts import Script
from workers.errors import QueueFull, QueueMemoryFull, TooManyInFlight, TooManyWebhooks
from workers.jobs import specs
from workers.queue.fair_queue import POSITION
from workers.queue.hooks import MOST_HOOKS
from workers.storage.pins import PIN_S, claim_key, pin_key

#: What a caller is told who finds the queue full and nothing has ended within the last minutes.
RETRY_UNKNOWN_S = 30
RETRY_MAX_S = 60


@dataclass(frozen=True)
class Limits:
    """How many jobs may wait, in all and of one caller: what runs does not count there.

    ``in_flight``: how many jobs that one caller was the first to ask for may wait or run; None: no bound.
    """

    queued: int = 10_000
    queued_per_caller: int = 2_000
    in_flight: int | None = None


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What is put into the queue, for whom, and when it is of use. ``cost`` is that of `Spec.cost`."""

    job_id: str
    spec: Spec
    cost: float
    priority: Priority = "interactive"
    deadline_s: float | None = None
    caller: str = ANONYMOUS
    flow: str | None = None
    webhook: str | None = None

    @classmethod
    def of(cls, request: VisualizationRequest, model: ModelInfo, caller: str, flow: str | None) -> Self:
        """What ``request`` asks of ``model``. Raises what `Spec.resolve` raises."""
        spec = request.spec.resolve(model)
        return cls(
            job_id=spec.resolved_identity(model),
            spec=spec,
            cost=spec.cost(model),
            priority=request.priority,
            deadline_s=request.deadline_s,
            caller=caller,
            flow=flow,
            webhook=request.webhook,
        )


# `ask` joins what waits or runs, returns what succeeded, and starts again what ended otherwise, or what has
# no RQ entry any more. `recompute`: the answer is gone from the store. `retry`: only what failed or was
# canceled. A limit holds for what would be new, and nothing else.
_SUBMIT = f"""
local id, mode, may_create, spec, steps, model, caller, flow = unpack(ARGV, 3, 10)
local priority, cost, deadline_s, limit, caller_limit, in_flight_limit, hook = unpack(ARGV, 11, 17)
local own, entry = own_key(id), entry_key(id)
local function record(word)
  note_asker(id, caller, false)
  add_hook('visualization', id, caller, hook, word == 'answered' and 'succeeded')
  return {{word, standing(id)}}
end

local function hurry(turn)
  if priority ~= 'interactive' or not turn or turn.priority == priority then return end
  if delist(id, turn) then
    enlist(id, set_turn(id, priority, turn.model, flow, tonumber(redis.call('HGET', own, 'cost'))), false)
    redis.call('PUBLISH', WAKE, turn.model)
  else -- popped or running: should it come back, it comes back to the front
    redis.call('HSET', own, 'priority', priority, 'flow', flow, 'turn', exact(clock_of(priority)))
  end
end

local function postpone()
  local deadline = tonumber(redis.call('HGET', own, 'deadline_at'))
  if not deadline then return end
  if deadline_s == '' then
    redis.call('HDEL', own, 'deadline_at')
    redis.call('ZREM', DEADLINES, id)
  elseif NOW + deadline_s > deadline then
    redis.call('HSET', own, 'deadline_at', exact(NOW + deadline_s))
    redis.call('ZADD', DEADLINES, 'XX', exact(NOW + deadline_s), id)
  end
end

-- Exact only where it matters: looking at each running job costs more than all the rest.
local function in_flight()
  local count = redis.call('SCARD', waiting_key(caller))
  if count + redis.call('SCARD', RUNNING) + redis.call('LLEN', POPPED) < tonumber(in_flight_limit) then
    return count
  end
  local function add(others)
    for _, other in ipairs(others) do
      if redis.call('HGET', own_key(other), 'caller') == caller then count = count + 1 end
    end
  end
  add(redis.call('SMEMBERS', RUNNING))
  add(redis.call('LRANGE', POPPED, 0, -1))
  return count
end

local function full()
  local count, whose = redis.call('LLEN', QUEUE), 'all'
  if count < tonumber(limit) then
    count, whose = redis.call('SCARD', waiting_key(caller)), 'caller'
    if count < tonumber(caller_limit) then
      if in_flight_limit == '' then return nil end
      count, whose = in_flight(), 'in_flight'
      if count < tonumber(in_flight_limit) then return nil end
    end
  end
  local at, rate = unpack(redis.call('HMGET', RATE, 'at', 'per_s'))
  local now_per_s = at and rate * math.exp(math.min(0, at - NOW) / 60) or 0
  return {{whose, count, exact(now_per_s)}}
end

local function clear()
  local run = redis.call('HGET', own, 'execution')
  if run then end_lease(id, run) end
  leave(id)
  redis.call('LREM', POPPED, 0, id)
  redis.call('SREM', RUNNING, id)
  for _, registry in ipairs({{FINISHED, FAILED, CANCELED}}) do redis.call('ZREM', registry, id) end
  redis.call('DEL', own, entry)
end

if hooks_full(id, caller, hook) then return {{'hooks'}} end
local state, status = redis.call('HGET', own, 'state'), redis.call('HGET', entry, 'status')
if (state == 'queued' or state == 'running') and (status == 'queued' or status == 'started') then
  if mode ~= 'retry' then
    redis.call('HDEL', own, 'cancel_requested')
    redis.call('SREM', FORGOTTEN, id)
    hurry(turn_of(id))
    postpone()
  end
  return record('joined')
end
if mode == 'retry' and state ~= 'failed' and state ~= 'canceled' then return record('joined') end
if state == 'succeeded' and mode ~= 'recompute' then
  if redis.call('EXISTS', '{claim_key("")}' .. id) == 0 then
    redis.call('SET', '{pin_key("")}' .. id, 1, 'EX', {PIN_S})
    redis.call('SREM', FORGOTTEN, id)
    return record('answered')
  end
end
if may_create == '0' then return {{'refused'}} end
local refusal = full()
if refusal then return refusal end
if state or status then clear() end
if mode == 'retry' then renew_hooks(id, caller) end
redis.call('HSET', own, 'spec', spec, 'steps', steps, 'state', 'queued', 'step', 0, 'losses', 0, 'cost', cost,
  'caller', caller, 'created_at', NOW_TEXT)
if deadline_s ~= '' then redis.call('HSET', own, 'deadline_at', exact(NOW + deadline_s)) end
redis.call('HSET', entry, unpack(ARGV, 18))
redis.call('SADD', '{queue.QUEUES_KEY}', QUEUE)
redis.call('ZADD', JOBS, NOW_TEXT, id)
local oldest = redis.call('ZRANGE', JOBS, 0, 0)[1]
if redis.call('EXISTS', own_key(oldest)) == 0 then redis.call('ZREM', JOBS, oldest) end
redis.call('SREM', FORGOTTEN, id)
wait(id, set_turn(id, priority, model, flow, tonumber(cost)), false)
return record('created')
"""

Mode = Literal["ask", "recompute", "retry"]


class Submit:
    """Puts jobs into the queue. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._create = Script(redis, POSITION + _SUBMIT)
        self._join = Script(redis, POSITION + _SUBMIT, "allow-oom")

    def __call__(
        self, submission: Submission, mode: Mode, limits: Limits
    ) -> Operation[tuple[Mapping[bytes, bytes], bool]]:
        """The record's fields, and whether this created the job.

        Raises `QueueFull`, or `QueueMemoryFull` where Redis takes nothing new; what waits or runs is joined
        all the same. `TooManyWebhooks` where the caller has as many URLs told of the job as it may.
        """
        try:
            answer = yield self._sending(self._create, submission, mode, limits)
        except OutOfMemoryError as error:
            answer = yield self._sending(self._join, submission, mode, limits)
            if answer[0] == b"refused":
                raise QueueMemoryFull("Redis has reached its maxmemory and takes no new job") from error
        word, *rest = answer
        if word == b"hooks":
            raise TooManyWebhooks(submission.job_id, MOST_HOOKS)
        if word in (b"all", b"caller", b"in_flight"):
            raise _refusal(submission, limits, word, int(rest[0]), float(rest[1]))
        flat = cast(list[bytes], rest[0])
        return dict(zip(flat[::2], flat[1::2], strict=True)), word == b"created"

    def _sending(
        self, script: Script, submission: Submission, mode: Mode, limits: Limits
    ) -> RedisCommand[list[Any]]:
        words = self._words(submission, mode, limits, create=script is self._create)
        return RedisCommand(lambda client: script(*words, client=client), list)

    def _words(
        self, submission: Submission, mode: Mode, limits: Limits, *, create: bool
    ) -> list[str | int | float]:
        spec, flow = submission.spec, submission.caller
        if submission.flow is not None:
            flow = f"{submission.caller}/{submission.flow}"
        entry = queue.entry_fields(submission.job_id)
        flat: list[Any] = [part for pair in entry.items() for part in pair]
        return [
            *(submission.job_id, mode, int(create), specs.to_text(spec), spec.steps, spec.model),
            *(submission.caller, flow, submission.priority, submission.cost),
            "" if submission.deadline_s is None else submission.deadline_s,
            *(limits.queued, limits.queued_per_caller),
            "" if limits.in_flight is None else limits.in_flight,
            submission.webhook or "",
            *flat,
        ]


def _refusal(submission: Submission, limits: Limits, whose: bytes, count: int, per_s: float) -> QueueFull:
    wait_s = RETRY_UNKNOWN_S
    if per_s > 1 / RETRY_MAX_S / 10:
        wait_s = max(1, min(RETRY_MAX_S, math.ceil(1 / per_s)))
    if whose == b"in_flight" and limits.in_flight is not None:
        return TooManyInFlight(count, limits.in_flight, submission.caller, wait_s)
    of_all = whose == b"all"
    limit = limits.queued if of_all else limits.queued_per_caller
    return QueueFull(count, limit, None if of_all else submission.caller, wait_s)
