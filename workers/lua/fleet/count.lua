#!lua flags=no-writes
-- Counts what waits, runs and has ended, and the workers.
-- ARGV: none
-- Returns: {{priority, capability, waiting} of each, age of the oldest waiting job in seconds, running jobs, ended
--   jobs by kind and state as a flat list, readiness of each worker as JSON, slots, running batches, pending
--   deliveries}.
-- @include lib/clock
-- @include lib/fair_queue
-- @include lib/keys

-- A job that was put back stands before what is older than it: so many of the list are compared.
local COMPARED_JOBS = 100
-- Receivers of webhooks whose deliveries are counted, those first that are due first.
local COUNTED_RECEIVERS = 1000

local waiting = {}
for _, priority in ipairs(PRIORITIES) do
  for _, model in ipairs(redis.call('HKEYS', offsets_key(priority))) do
    local count = redis.pcall('ZCARD', ready_key(priority, model))
    waiting[#waiting + 1] = {priority, model, tonumber(count) or 0}
  end
end

local oldest = NOW
for _, id in ipairs(redis.call('LRANGE', RQ.QUEUE, 0, COMPARED_JOBS - 1)) do
  local created_at = redis.pcall('HGET', job_key(id), 'created_at')
  oldest = math.min(oldest, type(created_at) == 'string' and tonumber(created_at) or NOW)
end

local readiness = {}
for _, worker in ipairs(redis.call('ZRANGE', KEY.WORKERS, 0, -1)) do
  local word = redis.pcall('GET', KEY.WORKER_PREFIX .. worker .. ':readiness')
  if type(word) == 'string' then readiness[#readiness + 1] = word end
end

local slots = 0 -- RQ's list still has those that were killed a moment ago
for _, slot in ipairs(redis.call('SMEMBERS', RQ.WORKERS)) do
  slots = slots + redis.call('EXISTS', slot)
end

local deliveries = 0
for _, receiver in ipairs(redis.call('ZRANGE', KEY.RECEIVERS, 0, COUNTED_RECEIVERS - 1)) do
  deliveries = deliveries + (tonumber(redis.pcall('ZCARD', due_deliveries_key(receiver))) or 0)
end

return {waiting, exact(NOW - oldest), redis.call('SCARD', KEY.RUNNING), redis.call('HGETALL', KEY.ENDED),
  readiness, slots, redis.call('SCARD', KEY.RUNNING_BATCHES), deliveries}
