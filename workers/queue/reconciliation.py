"""Brings RQ's list and our index together again after other hands were at the list.

`rq requeue`, `rq empty`, a job that was canceled or deleted with RQ, and RQ's own cleanup, which `rq info`
runs, know the list alone. The difference of the two is found in one script and put right in it, a bounded
number of jobs at a time. Comparing 10,000 jobs that agree takes Redis some 11 ms (docs/queue.md).
"""

from __future__ import annotations

import redis

from workers.broker.scripts import Script

# In the list alone: a job of ours waits in its turn, or in a new one where it had ended and was put back; a
# running one whose lease is gone was taken from its worker by RQ's cleanup and has lost it; anything else is
# none of ours and fails. In the index alone: back into the list where RQ still calls it queued, else removed.
_RECONCILE = """
local limit, always = tonumber(ARGV[3]), ARGV[4] == '1'
local changed = {}
local function note(id, what)
  changed[#changed + 1] = id
  changed[#changed + 1] = what
  return #changed >= 2 * limit
end

local function of_no_lease()
  for _, id in ipairs(redis.call('SMEMBERS', RUNNING)) do
    local state, holder = unpack(redis.call('HMGET', own_key(id), 'state', 'execution'))
    if state ~= 'running' then
      redis.call('SREM', RUNNING, id)
    elseif not redis.call('ZSCORE', LEASES, id .. ':' .. (holder or '')) then
      note(id, adrift(id, redis.call('HGET', entry_key(id), 'status'), true))
    end
  end
end

local function indexed()
  local count = 0
  for _, priority in ipairs(PRIORITIES) do
    for _, model in ipairs(redis.call('HKEYS', offsets_key(priority))) do
      count = count + redis.call('ZCARD', ready_key(priority, model))
    end
  end
  return count
end
if always or redis.call('SCARD', RUNNING) ~= redis.call('ZCARD', LEASES) then of_no_lease() end
if not always and redis.call('LLEN', QUEUE) == indexed() then return changed end

local listed, twice = {}, {}
for _, id in ipairs(redis.call('LRANGE', QUEUE, 0, -1)) do
  if listed[id] then twice[id] = true end
  listed[id] = true
end
local popped = {}
for _, id in ipairs(redis.call('LRANGE', POPPED, 0, -1)) do popped[id] = true end
local index = {}

local function old_or_new_turn(id, anew)
  local turn = turn_of(id)
  if turn and not anew then return turn end
  local spec, model, caller, cost =
    unpack(redis.call('HMGET', own_key(id), 'spec', 'model', 'caller', 'cost'))
  caller = caller or 'anonymous' -- a record of an earlier version has none of these
  redis.call('HSET', own_key(id), 'caller', caller, 'cost', cost or 1)
  return set_turn(id, turn and turn.priority or 'interactive', model or cjson.decode(spec).model,
    turn and turn.flow or caller, tonumber(cost or 1))
end

local function revive(id)
  local own = own_key(id)
  redis.call('HDEL', own, 'started_at', 'finished_at', 'problem', 'worker', 'execution', 'activation',
    'expected_at', 'deadline_at')
  redis.call('HSET', own, 'state', 'queued', 'step', 0, 'losses', 0)
  redis.call('PERSIST', own)
  for _, registry in ipairs({FINISHED, FAILED, CANCELED}) do redis.call('ZREM', registry, id) end
  wait(id, old_or_new_turn(id, true), false)
  return 'queued'
end

local function of_list_alone(id)
  redis.call('LREM', QUEUE, 0, id)
  local state, holder = unpack(redis.call('HMGET', own_key(id), 'state', 'execution'))
  local status = redis.call('HGET', entry_key(id), 'status')
  if status ~= 'queued' then
    if not status then remove(id) end
    return 'dropped'
  elseif state == 'queued' then
    redis.call('LREM', POPPED, 0, id)
    wait(id, old_or_new_turn(id, false), false)
    return 'queued'
  elseif state == 'running' then
    if redis.call('ZSCORE', LEASES, id .. ':' .. (holder or '')) then
      redis.call('HSET', entry_key(id), 'status', 'started')
      return 'dropped'
    end
    if holder then end_lease(id, holder) end
    return abandon(id, true)
  elseif state == 'failed' or state == 'canceled' then
    return revive(id)
  end
  settle(id, state == 'succeeded' and 'finished' or 'failed')
  return 'dropped'
end

local function of_index_alone(id, turn)
  if redis.call('HGET', entry_key(id), 'status') == 'queued' and not popped[id] then
    redis.call('RPUSH', QUEUE, id)
    return 'queued'
  end
  delist(id, turn)
  index[id] = nil
  redis.call('ZREM', DEADLINES, id)
  forget_caller(id, redis.call('HGET', own_key(id), 'caller'))
  if not popped[id] then remove(id) end
  return 'dropped'
end

for id in pairs(twice) do
  redis.call('LREM', QUEUE, 0, id)
  redis.call('RPUSH', QUEUE, id)
end
for _, priority in ipairs(PRIORITIES) do
  for _, model in ipairs(redis.call('HKEYS', offsets_key(priority))) do
    for _, member in ipairs(redis.call('ZRANGE', ready_key(priority, model), 0, -1)) do
      local id = string.sub(member, 18)
      local known = index[id]
      index[id] = true
      if known or not listed[id] then
        local turn = {priority = priority, model = model, arrival = string.sub(member, 1, 16),
          flow = redis.call('HGET', own_key(id), 'flow') or nil}
        if known then -- its record was deleted, and made anew
          delist(id, turn)
        elseif note(id, of_index_alone(id, turn)) then
          return changed
        end
      end
    end
  end
end
for id in pairs(listed) do
  if not index[id] and note(id, of_list_alone(id)) then return changed end
end
if not always then return changed end

local counted = 0
for _, caller in ipairs(redis.call('SMEMBERS', CALLERS)) do
  counted = counted + redis.call('SCARD', waiting_key(caller))
end
if counted == redis.call('LLEN', QUEUE) then return changed end
for _, caller in ipairs(redis.call('SMEMBERS', CALLERS)) do
  for _, id in ipairs(redis.call('SMEMBERS', waiting_key(caller))) do
    if not index[id] and not listed[id] then forget_caller(id, caller) end
  end
end
return changed
"""

# What a flow still owes is nothing once the clock is past it.
_FORGET = """
for _, priority in ipairs(PRIORITIES) do
  local key, clock = flows_key(priority), clock_of(priority)
  local idle = redis.call('EXISTS', offsets_key(priority)) == 0
  local fields, waits = redis.call('HGETALL', key), {}
  for i = 1, #fields, 2 do
    local kind, flow = string.sub(fields[i], 1, 2), string.sub(fields[i], 3)
    if kind == 'n:' then
      waits[flow] = not idle
      if idle then redis.call('HDEL', key, fields[i]) end
    end
  end
  for i = 1, #fields, 2 do
    local kind, flow = string.sub(fields[i], 1, 2), string.sub(fields[i], 3)
    if kind ~= 'n:' and not waits[flow] and tonumber(fields[i + 1]) <= clock then
      redis.call('HDEL', key, fields[i])
    end
  end
end
"""


class RQReconciler:
    """The two scripts. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._reconcile = Script(redis, _RECONCILE, "allow-oom")
        self._forget = Script(redis, _FORGET, "allow-oom")

    def reconcile(self, limit: int, *, thoroughly: bool) -> dict[str, str]:
        """Put at most ``limit`` jobs right: what became of each, `queued`, `failed`, `canceled`, `dropped`.

        Only where list and index differ in length, unless ``thoroughly``.
        """
        flat = [word.decode() for word in self._reconcile(limit, int(thoroughly))]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def forget_flows(self) -> None:
        """Forget what flows have paid for."""
        self._forget()
