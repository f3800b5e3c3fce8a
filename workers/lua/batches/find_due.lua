#!lua flags=allow-oom
-- Looks through running batches: ends what is overdue, marks what may be expanded further. One worker a
-- second does it.
-- ARGV: 1 seconds between two looks, 2 seconds after which the jobs of a batch are compared with its counts,
--   3 most batches to compare, 4 seconds after which results are pinned anew
-- Returns: ids of batches whose cancellation was begun and not finished.
-- @include lib/batches
-- @include lib/clock
-- @include lib/guard
-- @include lib/keys
-- @include lib/locks

local every_s, compare_s, most_compared, pin_s = unpack(ARGV)
compare_s, most_compared, pin_s = tonumber(compare_s), tonumber(most_compared), tonumber(pin_s)
if is_held(KEY.BATCHES_LOOKED, every_s) then return {} end
redis.call('SET', KEY.BATCHES_LOOKED, 1, 'PX', math.floor(every_s * 900))

-- A job that is gone is submitted again, or counts as canceled where the batch is; a job in another state
-- than was counted is counted anew.
local function compare(batch, key)
  redis.call('HSET', key, 'compared_at', NOW_TEXT)
  local flat = redis.call('HGETALL', batch_key(batch, 'open'))
  for i = 1, #flat, 2 do
    local id, unit = flat[i], flat[i + 1]
    local state = redis.call('HGET', job_key(id), 'state')
    local mark = redis.call('HGET', batch_key(batch, 'units'), unit)
    if not state and redis.call('HEXISTS', key, 'cancel_requested') == 1 then
      mark_unit(batch, unit, id, 'canceled')
    elseif not state then
      redis.call('RPUSH', batch_key(batch, 'now'), unit)
    elseif UNIT_STATES[string.sub(mark, 1, 1)] ~= state then
      mark_unit(batch, unit, id, state, unit_detail(id, state))
    end
  end
end

local canceled, stale = {}, {}
local function drop(batch) return function() redis.call('SREM', KEY.RUNNING_BATCHES, batch) end end
local function look(batch)
  local key = batch_key(batch)
  local state, model, pending, deadline, compared, pinned, created = unpack(redis.call('HMGET', key, 'state',
    'model', 'cancel_pending', 'deadline_at', 'compared_at', 'pinned_at', 'created_at'))
  if state ~= 'running' then
    redis.call('SREM', KEY.RUNNING_BATCHES, batch)
  else
    if pending then canceled[#canceled + 1] = batch end
    if deadline and tonumber(deadline) <= NOW then
      drop_rest(batch, 'failed', {'deadline_exceeded', 'the deadline passed before these units were queued'})
    end
    if not is_held(batch_key(batch, 'claim'), LIMIT.CLAIM_S) then
      if redis.call('LLEN', batch_key(batch, 'now')) > 0 then
        make_due(batch, model)
      elseif elapsed_s(compared) >= compare_s then
        stale[#stale + 1] = {tonumber(compared or 0), batch, model}
      end
    end
    update_batch(batch)
    if elapsed_s(pinned or created) >= pin_s then make_due(batch, model) end
  end
end
for _, batch in ipairs(redis.call('SMEMBERS', KEY.RUNNING_BATCHES)) do
  guarded('running batches', batch, drop(batch), look, batch)
end

table.sort(stale, function(one, other) return one[1] < other[1] end)
local function catch_up_with_jobs(batch, model)
  compare(batch, batch_key(batch))
  if redis.call('LLEN', batch_key(batch, 'now')) > 0 then make_due(batch, model) end
  update_batch(batch)
end
for i = 1, math.min(#stale, most_compared) do
  local batch, model = stale[i][2], stale[i][3]
  guarded('running batches', batch, drop(batch), catch_up_with_jobs, batch, model)
end
return canceled
