#!lua flags=allow-oom
-- Reconciles RQ's list with the index of the fair queue after tools of RQ changed the list.
-- In the list alone: a job of ours waits in its turn, or in a new one where it had ended and was put back; a
-- running one whose lease is gone was taken from its worker by RQ's cleanup and has lost it; anything else is
-- none of ours and fails. In the index alone: back into the list where RQ still calls it queued, else it is
-- removed.
-- ARGV: 1 most jobs, 2 whether to compare where both have the same length (1 or 0)
-- Returns: job ids, each followed by what became of it: 'queued', 'failed', 'canceled', 'dropped' or 'stale'.
-- @include lib/ending
-- @include lib/fair_queue
-- @include lib/guard
-- @include lib/keys
-- @include lib/leases
-- @include lib/rq
-- @include lib/waiting

local limit, thorough = unpack(ARGV)
limit = tonumber(limit)
local always = thorough == '1'
local changed = {}
local function note(id, what)
  changed[#changed + 1] = id
  changed[#changed + 1] = what
  return #changed >= 2 * limit
end

local function of_no_lease()
  for _, id in ipairs(redis.call('SMEMBERS', KEY.RUNNING)) do
    guarded('running jobs', id, function() redis.call('SREM', KEY.RUNNING, id) end, function()
      local state, holder = unpack(redis.call('HMGET', job_key(id), 'state', 'execution'))
      if state ~= 'running' then
        redis.call('SREM', KEY.RUNNING, id)
      elseif not redis.call('ZSCORE', RQ.LEASES, id .. ':' .. (holder or '')) then
        note(id, recover(id, redis.call('HGET', entry_key(id), 'status'), true))
      end
    end)
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
if always or redis.call('SCARD', KEY.RUNNING) ~= redis.call('ZCARD', RQ.LEASES) then of_no_lease() end
if not always and redis.call('LLEN', RQ.QUEUE) == indexed() then return changed end

local listed, twice = {}, {}
for _, id in ipairs(redis.call('LRANGE', RQ.QUEUE, 0, -1)) do
  if listed[id] then twice[id] = true end
  listed[id] = true
end
local popped = {}
for _, id in ipairs(redis.call('LRANGE', RQ.INTERMEDIATE, 0, -1)) do popped[id] = true end
local index = {}

local function old_or_new_turn(id, anew)
  local turn = read_turn(id)
  if turn and not anew then return turn end
  local spec, model, caller, cost =
    unpack(redis.call('HMGET', job_key(id), 'spec', 'model', 'caller', 'cost'))
  caller = caller or 'anonymous' -- a record of an earlier version has none of these
  redis.call('HSET', job_key(id), 'caller', caller, 'cost', cost or 1)
  return assign_turn(id, turn and turn.priority or 'interactive', model or cjson.decode(spec).model,
    turn and turn.flow or caller, tonumber(cost or 1))
end

local function revive(id)
  local own = job_key(id)
  redis.call('HDEL', own, 'started_at', 'finished_at', 'problem', 'worker', 'execution', 'activation',
    'expected_at', 'deadline_at')
  redis.call('HSET', own, 'state', 'queued', 'step', 0, 'losses', 0)
  redis.call('PERSIST', own)
  for _, registry in ipairs({RQ.FINISHED, RQ.FAILED, RQ.CANCELED}) do redis.call('ZREM', registry, id) end
  enqueue(id, old_or_new_turn(id, true), false)
  return 'queued'
end

local function of_list_alone(id)
  redis.call('LREM', RQ.QUEUE, 0, id)
  local state, holder = unpack(redis.call('HMGET', job_key(id), 'state', 'execution'))
  local status = redis.call('HGET', entry_key(id), 'status')
  if status ~= 'queued' then
    if not status then end_removed(id) end
    return 'dropped'
  elseif state == 'queued' then
    redis.call('LREM', RQ.INTERMEDIATE, 0, id)
    enqueue(id, old_or_new_turn(id, false), false)
    return 'queued'
  elseif state == 'running' then
    if redis.call('ZSCORE', RQ.LEASES, id .. ':' .. (holder or '')) then
      redis.call('HSET', entry_key(id), 'status', 'started')
      return 'dropped'
    end
    if holder then delete_lease(id, holder) end
    return requeue(id, true)
  elseif state == 'failed' or state == 'canceled' then
    return revive(id)
  end
  end_entry(id, state == 'succeeded' and 'finished' or 'failed')
  return 'dropped'
end

local function of_index_alone(id, turn)
  if redis.call('HGET', entry_key(id), 'status') == 'queued' and not popped[id] then
    redis.call('RPUSH', RQ.QUEUE, id)
    return 'queued'
  end
  remove_from_index(id, turn)
  index[id] = nil
  redis.call('ZREM', KEY.DEADLINES, id)
  unlist_caller(id, redis.call('HGET', job_key(id), 'caller'))
  if not popped[id] then end_removed(id) end
  return 'dropped'
end

for id in pairs(twice) do
  redis.call('LREM', RQ.QUEUE, 0, id)
  redis.call('RPUSH', RQ.QUEUE, id)
end
for _, priority in ipairs(PRIORITIES) do
  for _, model in ipairs(redis.call('HKEYS', offsets_key(priority))) do
    for _, member in ipairs(redis.call('ZRANGE', ready_key(priority, model), 0, -1)) do
      local id = string.sub(member, 18)
      local known = index[id]
      index[id] = true
      if known or not listed[id] then
        local function drop() drop_from_index(priority, model, member) end
        local what = guarded('waiting jobs', id, drop, function()
          local turn = {priority = priority, model = model, arrival = string.sub(member, 1, 16),
            flow = redis.call('HGET', job_key(id), 'flow') or nil}
          if not known then return of_index_alone(id, turn) end
          remove_from_index(id, turn) -- its record was deleted, and made anew
        end)
        if what and note(id, what) then return changed end
      end
    end
  end
end
for id in pairs(listed) do
  if not index[id] then
    local function drop() redis.call('LREM', RQ.QUEUE, 0, id) end
    if note(id, guarded('waiting jobs', id, drop, of_list_alone, id) or 'dropped') then return changed end
  end
end
if not always then return changed end

local counted = 0
for _, caller in ipairs(redis.call('SMEMBERS', KEY.CALLERS)) do
  counted = counted + redis.call('SCARD', waiting_key(caller))
end
if counted == redis.call('LLEN', RQ.QUEUE) then return changed end
for _, caller in ipairs(redis.call('SMEMBERS', KEY.CALLERS)) do
  for _, id in ipairs(redis.call('SMEMBERS', waiting_key(caller))) do
    if not index[id] and not listed[id] then unlist_caller(id, caller) end
  end
end
return changed
