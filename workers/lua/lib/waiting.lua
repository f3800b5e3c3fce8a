-- Waiting jobs: `enqueue` is the only way in; `dequeue`, and the pop, are the ways out.
--
-- A job waits in RQ's list, in the index of the fair queue, among the waiting jobs of its caller and, where
-- it has a deadline, among the deadlines. Its turn, {priority, model, start, arrival, flow}, is stored in its
-- record.
-- @include lib/events
-- @include lib/fair_queue
-- @include lib/keys

-- `back`: the job had been popped, and goes to the front of RQ's list, which people see.
local function enqueue(id, turn, back)
  local caller, deadline = unpack(redis.call('HMGET', job_key(id), 'caller', 'deadline_at'))
  add_to_index(id, turn, back)
  redis.call(back and 'LPUSH' or 'RPUSH', RQ.QUEUE, id)
  redis.call('SADD', waiting_key(caller), id)
  redis.call('SADD', KEY.CALLERS, caller)
  if deadline then redis.call('ZADD', KEY.DEADLINES, deadline, id) end
  redis.call('PUBLISH', KEY.WAKE_CHANNEL, turn.model)
  publish_state(id)
end

local function unlist_caller(id, caller)
  if not caller then return end
  redis.call('SREM', waiting_key(caller), id)
  if redis.call('EXISTS', waiting_key(caller)) == 0 then redis.call('SREM', KEY.CALLERS, caller) end
end

-- Takes a job out of every list; says whether it waited.
local function dequeue(id)
  local turn = read_turn(id)
  local waited = turn and remove_from_index(id, turn)
  redis.call('LREM', RQ.QUEUE, 0, id)
  redis.call('ZREM', KEY.DEADLINES, id)
  unlist_caller(id, redis.call('HGET', job_key(id), 'caller'))
  return waited
end
