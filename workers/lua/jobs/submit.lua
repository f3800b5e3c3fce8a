#!lua
-- Queues a job, or joins one: of many callers that request the same at once, one creates it.
-- Mode `submit` joins what waits or runs, returns what succeeded, and starts again what ended otherwise, or has
-- no RQ entry any more. `recompute`: the result is gone from the store. `retry`: only what failed or was
-- canceled. A limit holds for a new job, and nothing else.
-- ARGV: 1 job id, 2 mode, 3 whether it may create a job (1 or 0), 4 kind, 5 spec as JSON, 6 steps, 7 what a
--   worker must offer (`workers.jobs.kinds.base.JobKind.capability`): of a visualization the model, 8 the same
--   with weights and method (`exact_capability`) or '', 9 caller, 10 flow, 11 priority, 12 cost, 13 deadline
--   in seconds or '', 14 limit of waiting jobs, 15 of the caller's waiting jobs, 16 of the caller's jobs in
--   flight or '', 17 webhook URL or '', 18… fields of RQ's entry
-- Returns: {'created' | 'joined' | 'answered', status}; {'refused'}: it may not create one; {'hooks'}: too
--   many webhooks; {'all' | 'caller' | 'in_flight', count, jobs that end per second}: the limit that was
--   reached.
-- @include lib/clock
-- @include lib/fair_queue
-- @include lib/keys
-- @include lib/leases
-- @include lib/locks
-- @include lib/position
-- @include lib/requesters
-- @include lib/waiting
-- @include lib/webhooks

local id, mode, may_create, kind, spec, steps, model, exact_model = unpack(ARGV)
local caller, flow, priority, cost, deadline_s, limit, caller_limit, in_flight_limit, url = unpack(ARGV, 9)
local own, entry = job_key(id), entry_key(id)
local function reply(word)
  note_requester(id, caller, false)
  subscribe(kind, id, caller, url, word == 'answered' and 'succeeded')
  return {word, job_status(id)}
end

local function hurry(turn)
  if priority ~= 'interactive' or not turn or turn.priority == priority then return end
  if remove_from_index(id, turn) then
    local cost_so_far = tonumber(redis.call('HGET', own, 'cost'))
    add_to_index(id, assign_turn(id, priority, turn.model, flow, cost_so_far), false)
    redis.call('PUBLISH', KEY.WAKE_CHANNEL, turn.model)
  else -- popped or running: should it be put back, it goes to the front
    redis.call('HSET', own, 'priority', priority, 'flow', flow, 'turn', exact(clock_of(priority)))
  end
end

local function postpone()
  local deadline = tonumber(redis.call('HGET', own, 'deadline_at'))
  if not deadline then return end
  if deadline_s == '' then
    redis.call('HDEL', own, 'deadline_at')
    redis.call('ZREM', KEY.DEADLINES, id)
  elseif NOW + deadline_s > deadline then
    redis.call('HSET', own, 'deadline_at', exact(NOW + deadline_s))
    redis.call('ZADD', KEY.DEADLINES, 'XX', exact(NOW + deadline_s), id)
  end
end

-- Exact only where it matters: looking at each running job costs more than all the rest.
local function in_flight()
  local count = redis.call('SCARD', waiting_key(caller))
  local others_count = redis.call('SCARD', KEY.RUNNING) + redis.call('LLEN', RQ.INTERMEDIATE)
  if count + others_count < tonumber(in_flight_limit) then return count end
  local function add(others)
    for _, other in ipairs(others) do
      if redis.pcall('HGET', job_key(other), 'caller') == caller then count = count + 1 end
    end
  end
  add(redis.call('SMEMBERS', KEY.RUNNING))
  add(redis.call('LRANGE', RQ.INTERMEDIATE, 0, -1))
  return count
end

local function full()
  local count, whose = redis.call('LLEN', RQ.QUEUE), 'all'
  if count < tonumber(limit) then
    count, whose = redis.call('SCARD', waiting_key(caller)), 'caller'
    if count < tonumber(caller_limit) then
      if in_flight_limit == '' then return nil end
      count, whose = in_flight(), 'in_flight'
      if count < tonumber(in_flight_limit) then return nil end
    end
  end
  local at, rate = unpack(redis.call('HMGET', KEY.RATE, 'at', 'per_s'))
  local now_per_s = at and rate * math.exp(math.min(0, at - NOW) / 60) or 0
  return {whose, count, exact(now_per_s)}
end

local function clear()
  local run = redis.call('HGET', own, 'execution')
  if run then delete_lease(id, run) end
  dequeue(id)
  redis.call('LREM', RQ.INTERMEDIATE, 0, id)
  redis.call('SREM', KEY.RUNNING, id)
  for _, registry in ipairs({RQ.FINISHED, RQ.FAILED, RQ.CANCELED}) do redis.call('ZREM', registry, id) end
  redis.call('DEL', own, entry)
end

if subscriptions_full(id, caller, url) then return {'hooks'} end
local state, status = redis.call('HGET', own, 'state'), redis.call('HGET', entry, 'status')
if (state == 'queued' or state == 'running') and (status == 'queued' or status == 'started') then
  if mode ~= 'retry' then
    redis.call('HDEL', own, 'cancel_requested')
    redis.call('SREM', KEY.FORGOTTEN, id)
    hurry(read_turn(id))
    postpone()
  end
  return reply('joined')
end
if mode == 'retry' and state ~= 'failed' and state ~= 'canceled' then return reply('joined') end
if state == 'succeeded' and mode ~= 'recompute' then
  if not is_held(KEY.DELETION_LOCK_PREFIX .. id, LIMIT.DELETION_LOCK_S) then
    redis.call('SET', KEY.PIN_PREFIX .. id, 1, 'EX', LIMIT.PIN_S)
    redis.call('SREM', KEY.FORGOTTEN, id)
    return reply('answered')
  end
end
if may_create == '0' then return {'refused'} end
local refusal = full()
if refusal then return refusal end
if mode == 'retry' then
  exact_model = redis.call('HGET', own, 'exact') or ''
  renew_subscriptions(id, caller)
end
if state or status then clear() end
redis.call('HSET', own, 'kind', kind, 'spec', spec, 'steps', steps, 'state', 'queued', 'step', 0, 'losses', 0,
  'cost', cost, 'caller', caller, 'created_at', NOW_TEXT)
if exact_model ~= '' then redis.call('HSET', own, 'exact', exact_model) end
if deadline_s ~= '' then redis.call('HSET', own, 'deadline_at', exact(NOW + deadline_s)) end
redis.call('HSET', entry, unpack(ARGV, 18))
redis.call('SADD', RQ.QUEUES, RQ.QUEUE)
redis.call('ZADD', KEY.JOBS, NOW_TEXT, id)
local oldest = redis.call('ZRANGE', KEY.JOBS, 0, 0)[1]
if redis.call('EXISTS', job_key(oldest)) == 0 then redis.call('ZREM', KEY.JOBS, oldest) end
redis.call('SREM', KEY.FORGOTTEN, id)
enqueue(id, assign_turn(id, priority, model, flow, tonumber(cost)), false)
return reply('created')
