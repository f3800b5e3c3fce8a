-- Leases: how one ends, and what becomes of its job.
-- @include lib/ending
-- @include lib/fair_queue
-- @include lib/keys
-- @include lib/rq
-- @include lib/waiting

local function delete_lease(id, execution)
  redis.call('ZREM', RQ.LEASES, id .. ':' .. execution)
  redis.call('DEL', RQ.EXECUTION_PREFIX .. id .. ':' .. execution)
  redis.call('ZREM', RQ.EXECUTIONS_PREFIX .. id, execution)
end

local function checkpointed_step(own)
  local text = redis.call('HGET', own, 'checkpoint')
  local read, checkpoint = pcall(cjson.decode, text or '{}')
  return read and type(checkpoint) == 'table' and tonumber(checkpoint.step) or 0
end

-- Puts a running job that nobody runs any more back to its turn, unless it is to be canceled or has lost too
-- many workers.
local function requeue(id, lost)
  local own, entry = job_key(id), entry_key(id)
  if redis.call('HEXISTS', own, 'cancel_requested') == 1 then
    end_job(id, 'canceled')
    end_entry(id, 'canceled')
    return 'canceled'
  end
  if lost then redis.call('HINCRBY', KEY.ENDED, 'lost', 1) end
  if lost and redis.call('HINCRBY', own, 'losses', 1) >= LIMIT.MAX_LOSSES then
    end_job(id, 'failed', {'worker_lost', 'the job was running on ' .. LIMIT.MAX_LOSSES ..
      ' workers when they died, and is not given to another one'})
    end_entry(id, 'failed')
    return 'failed'
  end
  redis.call('SREM', KEY.RUNNING, id)
  redis.call('HSET', own, 'state', 'queued', 'step', checkpointed_step(own))
  redis.call('HDEL', own, 'started_at', 'worker', 'execution', 'activation', 'expected_at')
  redis.call('HSET', entry, 'status', 'queued', 'worker_name', '', 'started_at', '')
  local turn = read_turn(id)
  if turn then
    enqueue(id, turn, true)
  else
    redis.call('LPUSH', RQ.QUEUE, id) -- reconciliation gives it a turn
  end
  return 'queued'
end

-- Recovers a running job without a lease, by its status in RQ; a job that RQ queued itself is in RQ's list.
local function recover(id, status, lost)
  if status == 'started' then return requeue(id, lost) end
  if status == 'queued' and redis.call('LPOS', RQ.QUEUE, id) then return 'stale' end
  if status == 'queued' then return requeue(id, lost) end
  end_removed(id)
  return 'canceled'
end

-- Ends a lease. Says what became of the job: 'queued' again at the front, 'failed' for too many losses,
-- 'canceled' as was requested, 'over' when it had ended before, 'stale' when this run was not the job's last.
local function release_lease(member, lost)
  local id, execution = string.match(member, '^(.*):([^:]+)$')
  if not id then error('it names no run') end
  delete_lease(id, execution)
  local state, holder = unpack(redis.call('HMGET', job_key(id), 'state', 'execution'))
  if state and holder ~= execution then return 'stale' end
  local status = redis.call('HGET', entry_key(id), 'status')
  if state == 'running' then return recover(id, status, lost) end
  if status ~= 'started' then return 'stale' end
  local statuses = {succeeded = 'finished', canceled = 'canceled'}
  end_entry(id, statuses[state] or 'failed')
  return 'over'
end
