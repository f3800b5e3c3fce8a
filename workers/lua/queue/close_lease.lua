#!lua flags=allow-oom
-- Ends a run and its job: our record, RQ's entry and the lease in one step. RQ keeps the last ten results of
-- a job.
-- ARGV: 1 job id, 2 execution, 3 outcome (succeeded, failed, canceled or expired), 4 slot, 5 seconds that it
--   ran, 6 RQ's type of result, 7 name of RQ's field for its content or '', 8 the content, 9… fields of the
--   record
-- Returns: 'closed'; 'lost': the run did not hold the job, nothing changed; 'queued': it was requested again.
-- @include lib/clock
-- @include lib/ending
-- @include lib/events
-- @include lib/keys
-- @include lib/leases
-- @include lib/rq

local id, execution, outcome, slot, ran_s, kind, payload, content = unpack(ARGV)
local own, member = job_key(id), id .. ':' .. execution
local ends = {expired = 'failed'}
local state, holder, cancel, deadline =
  unpack(redis.call('HMGET', own, 'state', 'execution', 'cancel_requested', 'deadline_at'))
if not redis.call('ZSCORE', RQ.LEASES, member) then
  -- Really lost, or told again by a client whose connection broke before it heard the answer.
  return holder == execution and state == (ends[outcome] or outcome) and 'closed' or 'lost'
end
if state and holder ~= execution then
  delete_lease(id, execution)
  return 'lost'
end

local function asked_again()
  if outcome == 'canceled' then return not cancel end
  return outcome == 'expired' and (not deadline or tonumber(deadline) > NOW)
end

local function record()
  local step, steps = unpack(redis.call('HMGET', own, 'step', 'steps'))
  local detail = 'the deadline passed at step ' .. step .. ' of ' .. steps
  local problem = outcome == 'expired' and {'deadline_exceeded', detail}
  end_job(id, ends[outcome] or outcome, problem, true)
  if #ARGV > 8 then redis.call('HSET', own, unpack(ARGV, 9)) end
  redis.call('HSET', own, 'state', ends[outcome] or outcome)
  publish_state(id)
end

local function keep_result()
  local result = RQ.RESULTS_PREFIX .. id
  local words = {'type', kind, 'worker_name', slot, 'execution_id', execution}
  if payload ~= '' then
    words[#words + 1] = payload
    words[#words + 1] = content
  end
  redis.call('XADD', result, 'MAXLEN', 10, '*', unpack(words))
  redis.call('EXPIRE', result, LIMIT.FINISHED_TTL_S)
end

local function count_for_worker()
  local worker = RQ.WORKER_PREFIX .. slot
  if redis.call('EXISTS', worker) == 0 then return end
  redis.call('HDEL', worker, 'current_job')
  redis.call('HINCRBYFLOAT', worker, 'total_working_time', ran_s)
  if outcome == 'canceled' then return end
  redis.call('HINCRBY', worker, outcome == 'succeeded' and 'successful_job_count' or 'failed_job_count', 1)
end

-- For those who ask how long it will take: a mean over about the last ten runs.
local function learn_pace()
  local cost, model = unpack(redis.call('HMGET', own, 'cost', 'model'))
  local function learn(field, value)
    local known = tonumber(redis.call('HGET', KEY.PACE, field) or value)
    redis.call('HSET', KEY.PACE, field, exact(known + (value - known) / 10))
  end
  learn('ran_s', tonumber(ran_s))
  if model and cost and tonumber(cost) > 0 then learn('model:' .. without_version(model), tonumber(ran_s) / cost) end
  redis.call('EXPIRE', KEY.PACE, LIMIT.FINISHED_TTL_S)
end

count_for_worker()
if outcome == 'succeeded' then learn_pace() end
if state == 'running' and asked_again() then
  return release_lease(member, false) == 'queued' and 'queued' or 'closed'
end
local statuses = {succeeded = 'finished', canceled = 'canceled'}
if state == 'running' then record() end
if redis.call('EXISTS', entry_key(id)) == 1 then keep_result() end
end_entry(id, statuses[outcome] or 'failed')
delete_lease(id, execution)
return 'closed'
