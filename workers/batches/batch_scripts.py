"""The steps of asking for a batch, and of letting go of one, that nothing may come between."""

from __future__ import annotations

from workers.batches.batching import MOST_LISTED, listed_key

ASK = f"""
local id, caller, most, recheck_s, deadline_s, hook = unpack(ARGV, 3, 8)
local key = batch_key(id)
local found = redis.call('HMGET', key, 'state', 'dropped', 'finished_at', 'units', 'failed', 'canceled')
local state, dropped, finished_at, _, failed, canceled = unpack(found)

local function list_in(index)
  redis.call('ZADD', index, NOW_TEXT, id)
  redis.call('ZREMRANGEBYRANK', index, 0, -{MOST_LISTED} - 1)
  local oldest = redis.call('ZRANGE', index, 0, 0)[1]
  if redis.call('EXISTS', batch_key(oldest)) == 0 then redis.call('ZREM', index, oldest) end
end

-- Units without an answer, and those whose answers are not promised any more.
local function again()
  local stale = state ~= 'running' and finished_at and NOW - finished_at > tonumber(recheck_s)
  if not (dropped or stale) and failed + canceled == 0 then return {{}} end
  local marks, flat = {{}}, redis.call('HGETALL', batch_key(id, 'units'))
  for i = 1, #flat, 2 do marks[flat[i]] = string.sub(flat[i + 1], 1, 1) end
  local anew = {{}}
  local function look(unit)
    local mark = marks[string.format('%d', unit)]
    if mark == 'f' or mark == 'c' or (mark == 's' and stale) or (not mark and dropped) then
      anew[#anew + 1] = unit
    end
  end
  local units = cjson.decode(found[4])
  if units.stop then
    for unit = units.start, units.stop - 1, units.step do look(unit) end
  else
    for _, unit in ipairs(units) do look(unit) end
  end
  return anew
end

local function ask_again(units)
  redis.call('PERSIST', key)
  redis.call('PERSIST', batch_key(id, 'units'))
  for _, unit in ipairs(units) do
    local mark = redis.call('HGET', batch_key(id, 'units'), unit)
    if mark then
      redis.call('HINCRBY', key, UNIT_STATES[string.sub(mark, 1, 1)], -1)
      redis.call('HDEL', batch_key(id, 'units'), unit)
    else
      redis.call('HINCRBY', key, dropped, -1)
    end
    redis.call('RPUSH', batch_key(id, 'again'), unit)
  end
  redis.call('HSET', key, 'state', 'running', 'created_at', NOW_TEXT)
  redis.call('HDEL', key, 'finished_at', 'dropped', 'problem')
end

-- What was asked to stop and has not is asked for again, which takes that back.
local function take_back_cancellation()
  if redis.call('HDEL', key, 'cancel_requested', 'cancel_pending') == 0 then return end
  for _, unit in ipairs(redis.call('HVALS', batch_key(id, 'open'))) do
    redis.call('RPUSH', batch_key(id, 'now'), unit)
  end
end

if hooks_full(id, caller, hook) then return 'hooks' end
local anew = state and again() or {{}}
local starts = not state or #anew > 0
if starts and state ~= 'running' and redis.call('SCARD', running_batches_of(caller)) >= tonumber(most) then
  return 'too_many'
end
if #anew > 0 then
  ask_again(anew)
  renew_hooks(id, caller)
end
if state then take_back_cancellation() end
if starts or state == 'running' then
  redis.call('HSET', key, unpack(ARGV, 9))
  redis.call('HDEL', key, 'deadline_at', 'held_until')
  if deadline_s ~= '' then redis.call('HSET', key, 'deadline_at', exact(NOW + deadline_s)) end
end
if not state then
  redis.call('HSET', key, 'state', 'running', 'caller', caller, 'created_at', NOW_TEXT, 'cursor', 0)
  redis.call('HSET', key, 'queued', 0, 'running', 0, 'succeeded', 0, 'failed', 0, 'canceled', 0)
end
if starts then
  redis.call('SADD', RUNNING_BATCHES, id)
  redis.call('SADD', running_batches_of(caller), id)
  list_in(ALL_BATCHES)
  list_in('{listed_key("")}' .. caller)
end
local stands = redis.call('HGET', key, 'state')
add_hook('batch', id, caller, hook, stands ~= 'running' and stands)
follow_batch(id)
return state and 'known' or 'new'
"""

STOP = """
local batch = ARGV[3]
local key = batch_key(batch)
if redis.call('HGET', key, 'state') ~= 'running' then return 0 end
redis.call('HSETNX', key, 'cancel_requested', NOW_TEXT)
redis.call('HSET', key, 'cancel_pending', 1)
drop_rest(batch, 'canceled')
follow_batch(batch)
return 1
"""

# What the caller wants in another batch goes on there, and what others want goes on for them. A run that is
# asked to stop stays open until it has.
WITHDRAW = """
local batch = ARGV[3]
local caller = redis.call('HGET', batch_key(batch), 'caller')
if not caller or redis.call('HEXISTS', batch_key(batch), 'cancel_requested') == 0 then return end
for _, id in ipairs({unpack(ARGV, 4)}) do
  local unit = redis.call('HGET', batch_key(batch, 'open'), id)
  if unit and wanted_elsewhere(batch, id, caller) then
    mark_unit(batch, unit, id, 'canceled')
  elseif unit then
    withdraw(id, caller == ANONYMOUS and '' or caller)
    local state = redis.call('HGET', own_key(id), 'state')
    local open = redis.call('HEXISTS', batch_key(batch, 'open'), id) == 1
    if open and state ~= 'running' then mark_unit(batch, unit, id, 'canceled') end
  end
end
follow_batch(batch)
"""

FORGET = f"""
local batch = ARGV[3]
local key = batch_key(batch)
local caller, model = unpack(redis.call('HMGET', key, 'caller', 'model'))
if not caller then return 0 end
for _, id in ipairs(redis.call('HKEYS', batch_key(batch, 'open'))) do
  redis.call('SREM', batches_of(id), batch)
end
for _, part in ipairs({{'units', 'open', 'again', 'now', 'claim'}}) do
  redis.call('DEL', batch_key(batch, part))
end
redis.call('DEL', key, hooks_key(batch))
redis.call('SREM', RUNNING_BATCHES, batch)
redis.call('SREM', running_batches_of(caller), batch)
redis.call('ZREM', due_key(model), batch)
redis.call('ZREM', ALL_BATCHES, batch)
redis.call('ZREM', '{listed_key("")}' .. caller, batch)
return 1
"""
