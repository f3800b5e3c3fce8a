"""Scripts that run in Redis, each a step that nothing comes between, and the Lua that they share.

A job waits in RQ's list, in the index that gives the order, among the waiting ones of its caller and, where
it has one, among the deadlines. `wait` is the only way in; `leave`, and the pop, are the ways out.

Scripts name their keys themselves: RQ does not work on a Redis cluster either. They need Redis 7 or any
Valkey for their flags: one that only moves or ends what is there runs in a full Redis too, one that brings
more is refused by Redis before its first line.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import redis
from rq.utils import utcformat

from proxygrad.protocol.requests import ANONYMOUS
from workers.batches.batching import FOLLOWING
from workers.broker import queue
from workers.broker.fairness import TURNS
from workers.broker.pipeline import LuaScript
from workers.jobs.events import TELLING
from workers.queue.hooks import TELLING_HOOKS

Flags = Literal["allow-oom", "no-writes"]

_KEYS = f"""
local QUEUE, POPPED, LEASES = '{queue.QUEUE_KEY}', '{queue.POPPED_KEY}', '{queue.LEASES_KEY}'
local FINISHED, FAILED, CANCELED = '{queue.FINISHED_KEY}', '{queue.FAILED_KEY}', '{queue.CANCELED_KEY}'
local DEADLINES, CALLERS, RATE = 'proxygrad:deadlines', 'proxygrad:callers', 'proxygrad:rate'
local PACE = '{queue.PACE_KEY}'
local JOBS, FORGOTTEN, ENDED = '{queue.JOBS_KEY}', '{queue.FORGOTTEN_KEY}', '{queue.ENDED_KEY}'
local ANONYMOUS, MOST_ASKED = '{ANONYMOUS}', {queue.MOST_ASKED}
local RUNNING = 'proxygrad:running' -- what should have a lease: other hands may take that away
local WAKE, CANCEL = '{queue.WAKE_CHANNEL}', '{queue.CANCEL_CHANNEL}'
local STAMP, KEEP_S = ARGV[1], ARGV[2]
local function own_key(id) return '{queue.job_key("")}' .. id end
local function askers_key(id) return '{queue.askers_key("")}' .. id end
local function asked_key(caller) return '{queue.asked_key("")}' .. caller end
local function entry_key(id) return '{queue.entry_key("")}' .. id end
local function waiting_key(caller) return 'proxygrad:waiting:' .. caller end
local time = redis.call('TIME')
local NOW_TEXT = string.format('%d.%06d', time[1], time[2])
local NOW = tonumber(NOW_TEXT)
"""

_WAITING = """
local function turn_of(id)
  local priority, model, start, arrival, flow =
    unpack(redis.call('HMGET', own_key(id), 'priority', 'model', 'turn', 'arrival', 'flow'))
  if not (priority and model and start and arrival and flow) then return nil end
  return {priority = priority, model = model, start = tonumber(start), arrival = arrival, flow = flow}
end

local function set_turn(id, priority, model, flow, cost)
  local start, arrival = new_turn(priority, model, flow, cost)
  redis.call('HSET', own_key(id), 'priority', priority, 'model', model, 'flow', flow, 'turn', exact(start),
    'arrival', arrival)
  return {priority = priority, model = model, start = start, arrival = arrival, flow = flow}
end

-- `back`: it had been popped, and goes to the front of the list that people see; the index knows its turn.
local function wait(id, turn, back)
  local caller, deadline = unpack(redis.call('HMGET', own_key(id), 'caller', 'deadline_at'))
  enlist(id, turn, back)
  redis.call(back and 'LPUSH' or 'RPUSH', QUEUE, id)
  redis.call('SADD', waiting_key(caller), id)
  redis.call('SADD', CALLERS, caller)
  if deadline then redis.call('ZADD', DEADLINES, deadline, id) end
  redis.call('PUBLISH', WAKE, turn.model)
  tell_state(id)
end

local function forget_caller(id, caller)
  if not caller then return end
  redis.call('SREM', waiting_key(caller), id)
  if redis.call('EXISTS', waiting_key(caller)) == 0 then redis.call('SREM', CALLERS, caller) end
end

local function leave(id)
  local turn = turn_of(id)
  local waited = turn and delist(id, turn)
  redis.call('LREM', QUEUE, 0, id)
  redis.call('ZREM', DEADLINES, id)
  forget_caller(id, redis.call('HGET', own_key(id), 'caller'))
  return waited
end
"""

_ENDING = """
-- `caller` asked for what has a record, or, where `stored`, an answer in the store.
local function note_asker(id, caller, stored)
  if caller == ANONYMOUS then return end
  local askers, asked = askers_key(id), asked_key(caller)
  redis.call('HSET', askers, caller, '')
  if stored or redis.call('TTL', own_key(id)) >= 0 then
    redis.call('EXPIRE', askers, KEEP_S)
  else
    redis.call('PERSIST', askers)
  end
  redis.call('ZADD', asked, NOW_TEXT, id)
  redis.call('ZREMRANGEBYRANK', asked, 0, -MOST_ASKED - 1)
  redis.call('EXPIRE', asked, KEEP_S)
end

-- The pace of ends, for those who are told to come back later: a mean over the last minute.
local function count_end()
  local at, rate = unpack(redis.call('HMGET', RATE, 'at', 'per_s'))
  local kept = at and rate * math.exp(math.min(0, at - NOW) / 60) or 0
  redis.call('HSET', RATE, 'at', NOW_TEXT, 'per_s', exact(kept + 1 / 60))
end

-- RQ's side of an end; an entry that was deleted is not brought back.
local function settle(id, status)
  if redis.call('EXISTS', entry_key(id)) == 0 then return end
  redis.call('HSET', entry_key(id), 'status', status, 'ended_at', STAMP)
  redis.call('EXPIRE', entry_key(id), KEEP_S)
  local registry = ({finished = FINISHED, failed = FAILED, canceled = CANCELED})[status]
  for _, each in ipairs({FINISHED, FAILED, CANCELED}) do
    if each ~= registry then redis.call('ZREM', each, id) end
  end
  redis.call('ZADD', registry, NOW + KEEP_S, id)
end

-- Our side, where there is a record: `problem` is {code, detail} or nothing. `untold`: the caller tells.
local function conclude(id, state, problem, untold)
  local own = own_key(id)
  redis.call('SREM', RUNNING, id)
  redis.call('ZREM', DEADLINES, id)
  if redis.call('EXISTS', own) == 0 then return end
  redis.call('HSET', own, 'state', state, 'finished_at', NOW_TEXT)
  if problem then
    redis.call('HSET', own, 'problem', cjson.encode({code = problem[1], detail = problem[2]}))
  end
  redis.call('HDEL', own, 'checkpoint', 'cancel_requested', 'expected_at')
  redis.call('EXPIRE', own, KEEP_S)
  redis.call('EXPIRE', askers_key(id), KEEP_S)
  redis.call('HINCRBY', ENDED, state, 1)
  count_end()
  if not untold then tell_state(id) end
end

local function expire_waiting(id)
  local asked, deadline = unpack(redis.call('HMGET', own_key(id), 'created_at', 'deadline_at'))
  local form = 'the deadline, %.6g s after the question was asked, passed while the job waited'
  conclude(id, 'failed', {'deadline_exceeded', string.format(form, tonumber(deadline) - tonumber(asked))})
  settle(id, 'failed')
end

local function remove(id)
  local state = redis.call('HGET', own_key(id), 'state')
  if state == 'queued' or state == 'running' then
    conclude(id, 'canceled', {'removed', 'the job was removed with a tool of RQ'})
  end
  settle(id, 'canceled')
end
"""

_RELEASING = """
local function end_lease(id, execution)
  redis.call('ZREM', LEASES, id .. ':' .. execution)
  redis.call('DEL', 'rq:execution:' .. id .. ':' .. execution)
  redis.call('ZREM', 'rq:executions:' .. id, execution)
end

local function checkpointed_step(own)
  local text = redis.call('HGET', own, 'checkpoint')
  local read, checkpoint = pcall(cjson.decode, text or '{}')
  return read and type(checkpoint) == 'table' and tonumber(checkpoint.step) or 0
end

-- A running job that nobody runs any more waits again where it was, unless it is not wanted or too dangerous.
local function abandon(id, lost)
  local own, entry = own_key(id), entry_key(id)
  if redis.call('HEXISTS', own, 'cancel_requested') == 1 then
    conclude(id, 'canceled')
    settle(id, 'canceled')
    return 'canceled'
  end
  if lost then redis.call('HINCRBY', ENDED, 'lost', 1) end
  if lost and redis.call('HINCRBY', own, 'losses', 1) >= MAX_LOSSES then
    conclude(id, 'failed', {'worker_lost', 'the job was running on ' .. MAX_LOSSES ..
      ' workers when they died, and is not given to another one'})
    settle(id, 'failed')
    return 'failed'
  end
  redis.call('SREM', RUNNING, id)
  redis.call('HSET', own, 'state', 'queued', 'step', checkpointed_step(own))
  redis.call('HDEL', own, 'started_at', 'worker', 'execution', 'activation', 'expected_at')
  redis.call('HSET', entry, 'status', 'queued', 'worker_name', '', 'started_at', '')
  local turn = turn_of(id)
  if turn then wait(id, turn, true) else redis.call('LPUSH', QUEUE, id) end -- to get one by reconciliation
  return 'queued'
end

-- A running job without a lease, by what RQ has of it; what RQ queued itself is found in its list.
local function adrift(id, status, lost)
  if status == 'started' then return abandon(id, lost) end
  if status == 'queued' and redis.call('LPOS', QUEUE, id) then return 'stale' end
  if status == 'queued' then return abandon(id, lost) end
  remove(id)
  return 'canceled'
end

-- Ends a lease. Says what became of the job: 'queued' again at the front, 'failed' for too many losses,
-- 'canceled' as was wanted, 'over' when it had ended before, 'stale' when this run was not the job's last.
local function release(member, lost)
  local id, execution = string.match(member, '^(.*):([^:]+)$')
  end_lease(id, execution)
  local state, holder = unpack(redis.call('HMGET', own_key(id), 'state', 'execution'))
  if state and holder ~= execution then return 'stale' end
  local status = redis.call('HGET', entry_key(id), 'status')
  if state == 'running' then return adrift(id, status, lost) end
  if status ~= 'started' then return 'stale' end
  local statuses = {succeeded = 'finished', canceled = 'canceled'}
  settle(id, statuses[state] or 'failed')
  return 'over'
end
"""

#: A job that was running on this many workers when they died is not given to another one.
MAX_LOSSES = 3

_BOUNDS = f"local MAX_LOSSES = {MAX_LOSSES}\n"
_LIBRARY = _KEYS + TURNS + TELLING_HOOKS + FOLLOWING + TELLING + _WAITING + _ENDING + _BOUNDS + _RELEASING


def stamp() -> str:
    """The time as RQ writes it."""
    return utcformat(datetime.now(UTC))


class Script:
    """One script with the shared Lua before it; its own arguments begin at ``ARGV[3]``."""

    def __init__(self, redis: redis.Redis, body: str, flags: Flags | None = None) -> None:
        head = "#!lua" if flags is None else f"#!lua flags={flags}"
        self._script = LuaScript(redis, f"{head}\n{_LIBRARY}{body}")

    def __call__(
        self, *args: str | int | float, at: str | None = None, client: redis.Redis | None = None
    ) -> Any:
        """Run it; what it returns, as redis-py has it.

        ``at``: the time as RQ writes it, default now. ``client``: a pipeline to put it into instead.
        """
        return self._script([], [at or stamp(), queue.FINISHED_TTL_S, *args], client)


def text(value: object) -> str:
    """A word that a script returned."""
    assert isinstance(value, bytes)
    return value.decode()
