-- Status of a job: its record and, while it waits, its place in the queue (`workers.jobs.job.QueuePlace`).
--
-- For the position every model counts, as if a worker that serves them all came next; equal starts in other
-- models do not.
-- @include lib/clock
-- @include lib/fair_queue
-- @include lib/keys
-- @include lib/offers

-- How many jobs are before this one; -1 when it does not wait.
local function position(id)
  local turn = read_turn(id)
  if not turn then return -1 end
  local key, member = ready_key(turn.priority, turn.model), turn.arrival .. ':' .. id
  local rank = redis.call('ZRANK', key, member)
  if not rank then return -1 end
  local offsets = redis.call('HGETALL', offsets_key(turn.priority))
  local start = redis.call('ZSCORE', key, member) + redis.call('HGET', offsets_key(turn.priority), turn.model)
  for i = 1, #offsets, 2 do
    if offsets[i] ~= turn.model then
      local earlier = '(' .. exact(start - offsets[i + 1])
      rank = rank + redis.call('ZCOUNT', ready_key(turn.priority, offsets[i]), '-inf', earlier)
    end
  end
  if turn.priority == 'batch' then
    for _, model in ipairs(redis.call('HKEYS', offsets_key('interactive'))) do
      rank = rank + redis.call('ZCARD', ready_key('interactive', model))
    end
  end
  return rank
end

-- Seconds until the end of a job that has `ahead` before it, by the latest runs; nil where there were none.
local function expected_s(ahead, model, cost)
  local ran_s, each_s = unpack(redis.call('HMGET', KEY.PACE, 'ran_s', 'model:' .. without_version(model)))
  if not (ran_s and each_s) then return nil end
  local slots = redis.call('SCARD', RQ.WORKERS)
  local free = slots - redis.call('SCARD', KEY.RUNNING) - redis.call('LLEN', RQ.INTERMEDIATE)
  local ends = math.max(0, ahead + 1 - math.max(0, free))
  return ends * ran_s / math.max(1, slots) + cost * each_s
end

-- The fields of the record, and `place` of a job that waits.
local function job_status(id)
  local fields = redis.call('HGETALL', job_key(id))
  local state, model, cost = unpack(redis.call('HMGET', job_key(id), 'state', 'model', 'cost'))
  if state ~= 'queued' then return fields end
  local place = {ahead = math.max(0, position(id)), taken = model and is_offered(model) or false}
  if place.taken and cost then place.eta_s = expected_s(place.ahead, model, tonumber(cost)) end
  fields[#fields + 1] = 'place'
  fields[#fields + 1] = cjson.encode(place)
  return fields
end
