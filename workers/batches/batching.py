"""How batches follow their units: keys in Redis, and the Lua that every change of a job's state goes through.

A batch is a hash with its question, its counts by state, and how far it has been put into the queue
(`workers.batches.expander`). Beside it, while it runs: what became of each unit that was queued, those of
them that have not ended (by job), the units that are to be queued again, and those that are being queued just
now. And for each such job the batches that follow it. A unit that was not queued yet costs nothing.

The scripts that change a job's state tell its batches in the same step, so that the counts are never wrong,
whoever dies. Several batches may follow one job.
"""

from __future__ import annotations

from workers.broker import queue

#: Told when a batch may go on being put into the queue; the model's name. Lost, it costs a second.
CHANNEL = "proxygrad:batches:told"
#: Every batch, and those of one caller, scored by when they were asked for; and those that have not ended.
ALL_KEY = "proxygrad:batches"
RUNNING_KEY = "proxygrad:batches:running"
#: So many batches are listed to one caller, and to those who see all, the newest.
MOST_LISTED = 10_000


def batch_key(batch_id: str) -> str:
    """The batch's record, a hash."""
    return f"proxygrad:batch:{batch_id}"


def units_key(batch_id: str) -> str:
    """What became of its units, a hash: unit -> letter of the state, id of the job, `unit_detail`."""
    return f"{batch_key(batch_id)}:units"


def open_key(batch_id: str) -> str:
    """Its units in the queue or running, a hash: id of the job -> unit."""
    return f"{batch_key(batch_id)}:open"


def listed_key(caller: str) -> str:
    """The batches of a caller."""
    return f"{ALL_KEY}:of:{caller}"


def due_key(model: str) -> str:
    """The batches about a model that may go on being put into the queue, scored by since when."""
    return f"{ALL_KEY}:due:{model}"


#: Of a unit that was queued. One that was not has none: it waits, or went with the rest (`dropped`).
LETTERS = {"q": "queued", "r": "running", "s": "succeeded", "f": "failed", "c": "canceled"}
_STATES = ", ".join(f"{letter} = '{state}'" for letter, state in LETTERS.items())
_LETTERS = ", ".join(f"{state} = '{letter}'" for letter, state in LETTERS.items())

#: Functions for Lua, in the library of `workers.broker.scripts`, before `tell_state`, which calls
#: `tell_batches`.
FOLLOWING = f"""
local ALL_BATCHES, RUNNING_BATCHES = '{ALL_KEY}', '{RUNNING_KEY}'
local UNIT_STATES, UNIT_LETTERS = {{{_STATES}}}, {{{_LETTERS}}}
local function batch_key(batch, part)
  return '{batch_key("")}' .. batch .. (part and ':' .. part or '')
end
local OPEN_LETTERS = {{q = true, r = true}}
local function batches_of(id) return 'proxygrad:batches-of:' .. id end
local function due_key(model) return '{due_key("")}' .. model end
local function running_batches_of(caller) return RUNNING_BATCHES .. ':of:' .. caller end

-- May be put into the queue further. Whoever is at it looks again before it stops.
local function make_due(batch, model)
  if redis.call('EXISTS', batch_key(batch, 'claim')) == 1 then return end
  local held = tonumber(redis.call('HGET', batch_key(batch), 'held_until') or 0)
  if NOW < held then return end
  if redis.call('ZADD', due_key(model), 'NX', NOW_TEXT, batch) == 1 then
    redis.call('PUBLISH', '{CHANNEL}', model)
  end
end

-- `batch.ended`, for whoever is to be told: in the step that ends the batch, once for each end.
local function batch_ended(batch, state)
  redis.call('PUBLISH', '{queue.EVENTS_PREFIX}' .. batch, '- state {{"state":"' .. state .. '"}}')
  tell_hooks('batch', batch, state)
end

-- After a change of the counts: the end where all units have, or more into the queue where there is room.
local function follow_batch(batch)
  local key = batch_key(batch)
  local state, model, caller, cancel, total, window, queued, running, succeeded, failed, canceled =
    unpack(redis.call('HMGET', key, 'state', 'model', 'caller', 'cancel_requested', 'total', 'window',
      'queued', 'running', 'succeeded', 'failed', 'canceled'))
  if state ~= 'running' then return end
  local ended = succeeded + failed + canceled
  if ended < tonumber(total) then
    local room = tonumber(queued) <= window * 3 / 4
    if room and total - ended - queued - running > 0 then make_due(batch, model) end
    return
  end
  state = 'succeeded'
  if tonumber(canceled) > 0 then state = 'canceled' end
  if tonumber(failed) > 0 and not (cancel and state == 'canceled') then state = 'failed' end
  redis.call('HSET', key, 'state', state, 'finished_at', NOW_TEXT)
  redis.call('HDEL', key, 'cancel_pending', 'held_until')
  redis.call('EXPIRE', key, KEEP_S)
  redis.call('EXPIRE', batch_key(batch, 'units'), KEEP_S)
  redis.call('DEL', batch_key(batch, 'open'), batch_key(batch, 'again'), batch_key(batch, 'now'))
  redis.call('SREM', RUNNING_BATCHES, batch)
  redis.call('SREM', running_batches_of(caller), batch)
  redis.call('ZREM', due_key(model), batch)
  batch_ended(batch, state)
end

-- `detail`: the activation of a unit that has succeeded, the problem of one that has not.
local function mark_unit(batch, unit, id, state, detail)
  local key = batch_key(batch)
  local before = redis.call('HGET', batch_key(batch, 'units'), unit)
  local was = before and UNIT_STATES[string.sub(before, 1, 1)]
  if was then redis.call('HINCRBY', key, was, -1) end
  redis.call('HINCRBY', key, state, 1)
  redis.call('HSET', batch_key(batch, 'units'), unit,
    UNIT_LETTERS[state] .. ' ' .. id .. ' ' .. (detail or ''))
  if state == 'queued' or state == 'running' then
    redis.call('HSET', batch_key(batch, 'open'), id, unit)
    redis.call('SADD', batches_of(id), batch)
  else
    redis.call('HDEL', batch_key(batch, 'open'), id)
    redis.call('SREM', batches_of(id), batch)
    redis.call('HDEL', key, 'held_until')
  end
end

-- What `mark_unit` takes as detail, from the job's record: the activation and, where that is not of the first
-- picture, the number of that; or the problem.
local function unit_detail(id, state)
  local activation, problem, best =
    unpack(redis.call('HMGET', own_key(id), 'activation', 'problem', 'best'))
  if state ~= 'succeeded' then return problem end
  return (activation or '') .. (best and best ~= '0' and ' ' .. best or '')
end

-- Whether the unit is in hand and its caller has not asked yet, while others may have: what they do with the
-- job is not this batch's.
local function asking_now(batch, unit, id)
  local caller = redis.call('HGET', batch_key(batch), 'caller')
  if caller == ANONYMOUS or not redis.call('LPOS', batch_key(batch, 'now'), unit) then return false end
  return redis.call('HGET', askers_key(id), caller) ~= ''
end

local function tell_batches(id, state)
  for _, batch in ipairs(redis.call('SMEMBERS', batches_of(id))) do
    local unit = redis.call('HGET', batch_key(batch, 'open'), id)
    if unit and state == 'canceled' and asking_now(batch, unit, id) then
      redis.call('HDEL', batch_key(batch), 'held_until') -- being asked just now: `align` says how it stands
    elseif unit then
      mark_unit(batch, unit, id, state, unit_detail(id, state))
      follow_batch(batch)
    else
      redis.call('SREM', batches_of(id), batch)
    end
  end
end

-- The caller does not want the job any more, which goes on for others.
local function leave_batches(id, caller)
  for _, batch in ipairs(redis.call('SMEMBERS', batches_of(id))) do
    local unit = redis.call('HGET', batch_key(batch, 'open'), id)
    if unit and redis.call('HGET', batch_key(batch), 'caller') == caller then
      mark_unit(batch, unit, id, 'canceled')
      follow_batch(batch)
    end
  end
end

-- Units that were not put into the queue end there.
local function drop_rest(batch, state, problem)
  local key = batch_key(batch)
  local total, queued, running, succeeded, failed, canceled =
    unpack(redis.call('HMGET', key, 'total', 'queued', 'running', 'succeeded', 'failed', 'canceled'))
  local waiting = total - queued - running - succeeded - failed - canceled
  if waiting > 0 then
    redis.call('HINCRBY', key, state, waiting)
    redis.call('HSET', key, 'dropped', state)
    if problem then
      redis.call('HSET', key, 'problem', cjson.encode({{code = problem[1], detail = problem[2]}}))
    end
  end
  redis.call('HSET', key, 'cursor', total)
  redis.call('DEL', batch_key(batch, 'again'))
  local now = batch_key(batch, 'now')
  for _, unit in ipairs(redis.call('LRANGE', now, 0, -1)) do
    if redis.call('HEXISTS', batch_key(batch, 'units'), unit) == 0 then redis.call('LREM', now, 0, unit) end
  end
end
"""

#: A function for Lua: whether another batch of the caller wants the job.
WANTED_ELSEWHERE = """
local function wanted_elsewhere(batch, id, caller)
  for _, other in ipairs(redis.call('SMEMBERS', batches_of(id))) do
    local whose, cancel = unpack(redis.call('HMGET', batch_key(other), 'caller', 'cancel_requested'))
    if other ~= batch and whose == caller and not cancel then return true end
  end
  return false
end
"""
