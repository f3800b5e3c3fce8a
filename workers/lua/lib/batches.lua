-- Batches: how they follow their units. Every change of a job's state updates its batches in the same step.
--
-- A batch is a hash with its request, its counts by state, and how far it was expanded into jobs. Beside it,
-- while it runs: what became of each unit that was queued (`units`), those that have not ended, by job
-- (`open`), the units to be queued again (`again`), and those being queued just now (`now`). For each such
-- job there is a set of the batches that follow it; there may be several. A unit that was not queued yet
-- costs nothing.
-- @include lib/clock
-- @include lib/guard
-- @include lib/keys
-- @include lib/locks
-- @include lib/webhooks

-- How the state of a unit is written, as in `workers.batches.batch.LETTERS`.
local UNIT_STATES = {q = 'queued', r = 'running', s = 'succeeded', f = 'failed', c = 'canceled'}
local UNIT_LETTERS = {queued = 'q', running = 'r', succeeded = 's', failed = 'f', canceled = 'c'}
local OPEN_LETTERS = {q = true, r = true}

-- The batch may be expanded further. A worker that has claimed it looks again before it stops.
local function make_due(batch, model)
  if is_held(batch_key(batch, 'claim'), LIMIT.CLAIM_S) then return end
  if is_ahead(redis.call('HGET', batch_key(batch), 'held_until'), LIMIT.REST_S) then return end
  if redis.call('ZADD', due_batches_key(model), 'NX', NOW_TEXT, batch) == 1 then
    redis.call('PUBLISH', KEY.BATCHES_CHANNEL, model)
  end
end

-- Publishes the end of a batch and makes its deliveries, in the step that ends it: once for each end.
local function publish_batch_end(batch, state)
  redis.call('PUBLISH', KEY.EVENTS_PREFIX .. batch, '- state {"state":"' .. state .. '"}')
  make_deliveries('batch', batch, state)
end

-- After a change of the counts: ends the batch when all units have, or makes it due when there is room.
local function update_batch(batch)
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
  redis.call('EXPIRE', key, LIMIT.FINISHED_TTL_S)
  redis.call('EXPIRE', batch_key(batch, 'units'), LIMIT.FINISHED_TTL_S)
  redis.call('DEL', batch_key(batch, 'open'), batch_key(batch, 'again'), batch_key(batch, 'now'))
  redis.call('SREM', KEY.RUNNING_BATCHES, batch)
  redis.call('SREM', running_batches_of_key(caller), batch)
  redis.call('ZREM', due_batches_key(model), batch)
  publish_batch_end(batch, state)
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
    redis.call('SADD', batches_of_job_key(id), batch)
  else
    redis.call('HDEL', batch_key(batch, 'open'), id)
    redis.call('SREM', batches_of_job_key(id), batch)
    redis.call('HDEL', key, 'held_until')
  end
end

-- The detail for `mark_unit`, from the job's record: the activation and, where the best image is not the
-- first, its number; or the problem.
local function unit_detail(id, state)
  local activation, problem, best =
    unpack(redis.call('HMGET', job_key(id), 'activation', 'problem', 'best'))
  if state ~= 'succeeded' then return problem end
  return (activation or '') .. (best and best ~= '0' and ' ' .. best or '')
end

-- Whether the unit is in hand and its caller has not requested the job yet, while others may have: what they
-- do with it does not concern this batch.
local function is_being_submitted(batch, unit, id)
  local caller = redis.call('HGET', batch_key(batch), 'caller')
  if caller == LIMIT.ANONYMOUS or not redis.call('LPOS', batch_key(batch, 'now'), unit) then return false end
  return redis.call('HGET', requesters_key(id), caller) ~= ''
end

-- Calls `act` with each batch that follows a job, and its unit. A batch that cannot be updated follows no more:
-- the job must be able to end.
local function each_batch_of(id, act)
  local key = batches_of_job_key(id)
  for _, batch in ipairs(guarded('batches of a job', id, function() redis.call('DEL', key) end, redis.call,
    'SMEMBERS', key) or {}) do
    guarded('batches of a job', batch, function() redis.call('SREM', key, batch) end, act, batch)
  end
end

-- Counts a new state of a job in the batches that follow it.
local function update_batches_of(id, state)
  each_batch_of(id, function(batch)
    local unit = redis.call('HGET', batch_key(batch, 'open'), id)
    if unit and state == 'canceled' and is_being_submitted(batch, unit, id) then
      redis.call('HDEL', batch_key(batch), 'held_until') -- `align` will count it
    elseif unit then
      mark_unit(batch, unit, id, state, unit_detail(id, state))
      update_batch(batch)
    else
      redis.call('SREM', batches_of_job_key(id), batch)
    end
  end)
end

-- The caller withdraws from a job that goes on for others.
local function withdraw_from_batches(id, caller)
  each_batch_of(id, function(batch)
    local unit = redis.call('HGET', batch_key(batch, 'open'), id)
    if unit and redis.call('HGET', batch_key(batch), 'caller') == caller then
      mark_unit(batch, unit, id, 'canceled')
      update_batch(batch)
    end
  end)
end

-- Ends the units that were not queued, in `state`.
local function drop_rest(batch, state, problem)
  local key = batch_key(batch)
  local total, queued, running, succeeded, failed, canceled =
    unpack(redis.call('HMGET', key, 'total', 'queued', 'running', 'succeeded', 'failed', 'canceled'))
  local waiting = total - queued - running - succeeded - failed - canceled
  if waiting > 0 then
    redis.call('HINCRBY', key, state, waiting)
    redis.call('HSET', key, 'dropped', state)
    if problem then
      redis.call('HSET', key, 'problem', cjson.encode({code = problem[1], detail = problem[2]}))
    end
  end
  redis.call('HSET', key, 'cursor', total)
  redis.call('DEL', batch_key(batch, 'again'))
  local now = batch_key(batch, 'now')
  for _, unit in ipairs(redis.call('LRANGE', now, 0, -1)) do
    if redis.call('HEXISTS', batch_key(batch, 'units'), unit) == 0 then redis.call('LREM', now, 0, unit) end
  end
end

-- Whether another batch of the caller follows the job.
local function wanted_elsewhere(batch, id, caller)
  for _, other in ipairs(redis.call('SMEMBERS', batches_of_job_key(id))) do
    local whose, cancel = unpack(redis.call('HMGET', batch_key(other), 'caller', 'cancel_requested'))
    if other ~= batch and whose == caller and not cancel then return true end
  end
  return false
end
