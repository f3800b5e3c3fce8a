"""How a run ends: one script for our record, RQ's books and the lease, so that no end is seen by halves."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Mapping
from typing import Literal, cast

import redis
from rq.results import Result as RQResult

from workers.broker.scripts import Script, text

Outcome = Literal["succeeded", "failed", "canceled", "expired"]
Closing = Literal["closed", "queued", "lost"]

#: RQ has no kind of result for a canceled job; a stopped one comes nearest.
_KINDS: Mapping[Outcome, RQResult.Type] = {
    "succeeded": RQResult.Type.SUCCESSFUL,
    "failed": RQResult.Type.FAILED,
    "canceled": RQResult.Type.STOPPED,
    "expired": RQResult.Type.FAILED,
}

# RQ keeps the last ten results of a job in a stream.
_CLOSE = """
local id, execution, outcome, slot, ran_s, kind, payload, content = unpack(ARGV, 3, 10)
local own, member = own_key(id), id .. ':' .. execution
local ends = {expired = 'failed'}
local state, holder, cancel, deadline =
  unpack(redis.call('HMGET', own, 'state', 'execution', 'cancel_requested', 'deadline_at'))
if not redis.call('ZSCORE', LEASES, member) then
  -- Really lost, or told again by a client whose connection broke before it heard the answer.
  return holder == execution and state == (ends[outcome] or outcome) and 'closed' or 'lost'
end
if state and holder ~= execution then
  end_lease(id, execution)
  return 'lost'
end

local function asked_again()
  if outcome == 'canceled' then return not cancel end
  return outcome == 'expired' and (not deadline or tonumber(deadline) > NOW)
end

local function record()
  local step, steps = unpack(redis.call('HMGET', own, 'step', 'steps'))
  local detail = 'the deadline passed at step ' .. step .. ' of ' .. steps
  local problem = outcome == 'expired' and {'deadline_exceeded', detail}
  conclude(id, ends[outcome] or outcome, problem, true)
  if #ARGV > 10 then redis.call('HSET', own, unpack(ARGV, 11)) end
  redis.call('HSET', own, 'state', ends[outcome] or outcome)
  tell_state(id)
end

local function keep_result()
  local result = 'rq:results:' .. id
  local words = {'type', kind, 'worker_name', slot, 'execution_id', execution}
  if payload ~= '' then
    words[#words + 1] = payload
    words[#words + 1] = content
  end
  redis.call('XADD', result, 'MAXLEN', 10, '*', unpack(words))
  redis.call('EXPIRE', result, KEEP_S)
end

local function count_for_worker()
  local worker = 'rq:worker:' .. slot
  if redis.call('EXISTS', worker) == 0 then return end
  redis.call('HDEL', worker, 'current_job')
  redis.call('HINCRBYFLOAT', worker, 'total_working_time', ran_s)
  if outcome == 'canceled' then return end
  redis.call('HINCRBY', worker, outcome == 'succeeded' and 'successful_job_count' or 'failed_job_count', 1)
end

-- For those who ask how long it will take: a mean over about the last ten runs.
local function learn_pace()
  local cost, model = unpack(redis.call('HMGET', own, 'cost', 'model'))
  local function learn(field, value)
    local known = tonumber(redis.call('HGET', PACE, field) or value)
    redis.call('HSET', PACE, field, exact(known + (value - known) / 10))
  end
  learn('ran_s', tonumber(ran_s))
  if model and cost and tonumber(cost) > 0 then learn('model:' .. model, tonumber(ran_s) / cost) end
  redis.call('EXPIRE', PACE, KEEP_S)
end

count_for_worker()
if outcome == 'succeeded' then learn_pace() end
if state == 'running' and asked_again() then
  return release(member, false) == 'queued' and 'queued' or 'closed'
end
local statuses = {succeeded = 'finished', canceled = 'canceled'}
if state == 'running' then record() end
if redis.call('EXISTS', entry_key(id)) == 1 then keep_result() end
settle(id, statuses[outcome] or 'failed')
end_lease(id, execution)
return 'closed'
"""


class Close:
    """The script, and what it is told."""

    def __init__(self, redis: redis.Redis) -> None:
        self._close = Script(redis, _CLOSE, "allow-oom")

    def __call__(
        self,
        job_id: str,
        execution_id: str,
        outcome: Outcome,
        fields: Mapping[str, str | int | float],
        *,
        slot: str,
        stamp: str,
        ran_s: float,
        exc_string: str,
    ) -> Closing:
        """See `workers.queue.leases.Leases.close`."""
        payload, content = _result(outcome, exc_string)
        flat = [part for pair in fields.items() for part in pair]
        kind = _KINDS[outcome].value
        words = [job_id, execution_id, outcome, slot, ran_s, kind, payload, content, *flat]
        return cast(Closing, text(self._close(*words, at=stamp)))


def _result(outcome: Outcome, exc_string: str) -> tuple[str, str]:
    """Name and value of the field that RQ's record of a result has, as `rq.results.Result` writes them."""
    if outcome == "succeeded":
        return "return_value", b64encode(json.dumps(outcome).encode()).decode()
    if exc_string:
        return "exc_string", b64encode(zlib.compress(exc_string.encode())).decode()
    return "", ""
