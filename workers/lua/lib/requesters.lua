-- Requesters of a job: the callers that share it, and the jobs that each requested.
-- @include lib/clock
-- @include lib/keys

-- `caller` requested a job that has a record or, where `stored`, a result in the store.
local function note_requester(id, caller, stored)
  if caller == LIMIT.ANONYMOUS then return end
  local requesters, requested = requesters_key(id), requested_key(caller)
  redis.call('HSET', requesters, caller, '')
  if stored or redis.call('TTL', job_key(id)) >= 0 then
    redis.call('EXPIRE', requesters, LIMIT.FINISHED_TTL_S)
  else
    redis.call('PERSIST', requesters)
  end
  redis.call('ZADD', requested, NOW_TEXT, id)
  redis.call('ZREMRANGEBYRANK', requested, 0, -LIMIT.MAX_LISTED_JOBS - 1)
  redis.call('EXPIRE', requested, LIMIT.FINISHED_TTL_S)
end
