#!lua
-- Creates a batch, or requests one again: units that failed or were canceled are queued again.
-- Where it ended longer ago than results are pinned, those that succeeded are looked up again too.
-- ARGV: 1 batch id, 2 caller, 3 most running batches of a caller, 4 deadline in seconds or '', 5 webhook URL
--   or '', 6… fields of the record
-- Returns: 'new', 'known', 'hooks' (too many webhooks) or 'too_many' (batches).
-- @include lib/batch_removal
-- @include lib/batches
-- @include lib/clock
-- @include lib/keys
-- @include lib/webhooks

local id, caller, most, deadline_s, url = unpack(ARGV)
local key = batch_key(id)
local found = redis.call('HMGET', key, 'state', 'dropped', 'finished_at', 'units', 'failed', 'canceled')
local state, dropped, finished_at, _, failed, canceled = unpack(found)

local function list_in(index)
  redis.call('ZADD', index, NOW_TEXT, id)
  redis.call('ZREMRANGEBYRANK', index, 0, -LIMIT.MAX_LISTED_BATCHES - 1)
  local oldest = redis.call('ZRANGE', index, 0, 0)[1]
  if redis.call('EXISTS', batch_key(oldest)) == 0 then redis.call('ZREM', index, oldest) end
end

-- Units without a result, and those whose results are not pinned any more.
local function again()
  local stale = state ~= 'running' and finished_at and elapsed_s(finished_at) > LIMIT.PIN_S
  if not (dropped or stale) and failed + canceled == 0 then return {} end
  local marks, flat = {}, redis.call('HGETALL', batch_key(id, 'units'))
  for i = 1, #flat, 2 do marks[flat[i]] = string.sub(flat[i + 1], 1, 1) end
  local anew = {}
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

local function queue_again(units)
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

-- Jobs that were to stop and have not are submitted again, which takes that back.
local function take_back_cancellation()
  if redis.call('HDEL', key, 'cancel_requested', 'cancel_pending') == 0 then return end
  for _, unit in ipairs(redis.call('HVALS', batch_key(id, 'open'))) do
    redis.call('RPUSH', batch_key(id, 'now'), unit)
  end
end

if subscriptions_full(id, caller, url) then return 'hooks' end
local anew = state and again() or {}
local starts = not state or #anew > 0
local running = redis.call('SCARD', running_batches_of_key(caller))
if starts and state ~= 'running' and running >= tonumber(most) then
  return 'too_many'
end
if #anew > 0 then
  queue_again(anew)
  renew_subscriptions(id, caller)
end
if state then take_back_cancellation() end
if starts or state == 'running' then
  redis.call('HSET', key, unpack(ARGV, 6))
  redis.call('HDEL', key, 'deadline_at', 'held_until')
  if deadline_s ~= '' then redis.call('HSET', key, 'deadline_at', exact(NOW + deadline_s)) end
end
if not state then
  redis.call('HSET', key, 'state', 'running', 'caller', caller, 'created_at', NOW_TEXT, 'cursor', 0)
  redis.call('HSET', key, 'queued', 0, 'running', 0, 'succeeded', 0, 'failed', 0, 'canceled', 0)
end
-- Of the batches that ended, the newest are kept, up to so many units in all: a unit takes some 100 bytes, and
-- a batch as much as some units more.
local function drop_oldest()
  local kept, index = 0, KEY.BATCHES_OF_PREFIX .. caller
  for _, batch in ipairs(redis.call('ZREVRANGE', index, 0, -1)) do
    local batch_state, total = unpack(redis.call('HMGET', batch_key(batch), 'state', 'total'))
    kept = kept + (tonumber(total) or 0) + LIMIT.UNITS_OF_A_BATCH
    if not batch_state then
      redis.call('ZREM', index, batch)
    elseif kept > LIMIT.MAX_KEPT_UNITS and batch ~= id and batch_state ~= 'running' then
      remove_batch(batch)
    end
  end
end

if starts then
  redis.call('SADD', KEY.RUNNING_BATCHES, id)
  redis.call('SADD', running_batches_of_key(caller), id)
  list_in(KEY.BATCHES)
  list_in(KEY.BATCHES_OF_PREFIX .. caller)
  drop_oldest()
end
local stands = redis.call('HGET', key, 'state')
subscribe('batch', id, caller, url, stands ~= 'running' and stands)
update_batch(id)
return state and 'known' or 'new'
