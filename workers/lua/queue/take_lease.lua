#!lua flags=allow-oom
-- Takes the lease of a popped job for a run.
-- Owning the entry in the list of popped jobs decides between a slot and a janitor that returned it. A client
-- whose connection broke sends its script again, which may have run: a lease of this run is its own.
-- ARGV: 1 job id, 2 execution, 3 slot, 4 worker, 5 seconds of the lease
-- Returns: 'taken'; 'elsewhere': another run has the job; 'over': it has ended.
-- @include lib/clock
-- @include lib/ending
-- @include lib/events
-- @include lib/keys
-- @include lib/rq

local id, execution, slot, worker, lease_s = unpack(ARGV)
local own, entry = job_key(id), entry_key(id)
local run, runs = RQ.EXECUTION_PREFIX .. id .. ':' .. execution, RQ.EXECUTIONS_PREFIX .. id
if redis.call('ZSCORE', RQ.LEASES, id .. ':' .. execution) then return 'taken' end
if redis.call('LREM', RQ.INTERMEDIATE, 1, id) == 0 then return 'elsewhere' end
local state = redis.call('HGET', own, 'state')
if state == 'running' then return 'elsewhere' end
if state and state ~= 'queued' then
  redis.call('EXPIRE', entry, LIMIT.FINISHED_TTL_S)
  return 'over'
end
redis.call('ZREM', KEY.DEADLINES, id)
if redis.call('HGET', entry, 'status') ~= 'queued' then
  end_removed(id) -- canceled or deleted with RQ since it was popped
  return 'over'
end
redis.call('ZADD', RQ.LEASES, NOW + lease_s, id .. ':' .. execution)
redis.call('HSET', run, 'id', execution, 'worker_name', slot)
redis.call('HSET', run, 'created_at', NOW_TEXT, 'last_heartbeat', NOW_TEXT)
redis.call('EXPIRE', run, LIMIT.FINISHED_TTL_S)
redis.call('ZADD', runs, NOW + LIMIT.FINISHED_TTL_S, execution)
redis.call('EXPIRE', runs, LIMIT.FINISHED_TTL_S)
redis.call('HSET', entry, 'status', 'started', 'worker_name', slot)
local rq_now = rq_time()
redis.call('HSET', entry, 'started_at', rq_now, 'last_heartbeat', rq_now)
redis.call('PERSIST', entry)
if state then
  redis.call('SADD', KEY.RUNNING, id)
  redis.call('HSET', own, 'state', 'running', 'started_at', NOW_TEXT)
  redis.call('HSET', own, 'worker', worker, 'execution', execution)
  publish_state(id)
end
local rq_worker = RQ.WORKER_PREFIX .. slot
if redis.call('EXISTS', rq_worker) == 1 then
  redis.call('HSET', rq_worker, 'state', 'busy', 'current_job', id)
end
return 'taken'
