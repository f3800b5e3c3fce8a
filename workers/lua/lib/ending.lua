-- The end of a job in our record.
-- @include lib/clock
-- @include lib/events
-- @include lib/keys
-- @include lib/rq

-- The rate of ends, a mean over the last minute: from it comes `Retry-After` of a full queue.
local function count_end()
  local at, rate = unpack(redis.call('HMGET', KEY.RATE, 'at', 'per_s'))
  local decayed = at and rate * math.exp(math.min(0, at - NOW) / 60) or 0
  redis.call('HSET', KEY.RATE, 'at', NOW_TEXT, 'per_s', exact(decayed + 1 / 60))
end

-- The field of the hash of ended jobs: the state alone of the kind that there was first.
local function ended_field(id, state)
  local kind = kind_of(id)
  return kind == LIMIT.DEFAULT_KIND and state or kind .. '/' .. state
end

-- Ends a job in its record, where there is one. `problem`: {code, detail} or nothing. `silently`: without an
-- event.
local function end_job(id, state, problem, silently)
  local own = job_key(id)
  redis.call('SREM', KEY.RUNNING, id)
  redis.call('ZREM', KEY.DEADLINES, id)
  if redis.call('EXISTS', own) == 0 then return end
  redis.call('HSET', own, 'state', state, 'finished_at', NOW_TEXT)
  if problem then
    redis.call('HSET', own, 'problem', cjson.encode({code = problem[1], detail = problem[2]}))
  end
  redis.call('HDEL', own, 'checkpoint', 'cancel_requested', 'expected_at')
  redis.call('EXPIRE', own, LIMIT.FINISHED_TTL_S)
  redis.call('EXPIRE', requesters_key(id), LIMIT.FINISHED_TTL_S)
  redis.call('HINCRBY', KEY.ENDED, ended_field(id, state), 1)
  count_end()
  if not silently then publish_state(id) end
end

-- Fails a waiting job whose deadline has passed.
local function expire_waiting(id)
  local created, deadline = unpack(redis.call('HMGET', job_key(id), 'created_at', 'deadline_at'))
  local form = 'the deadline, %.6g s after the question was asked, passed while the job waited'
  end_job(id, 'failed', {'deadline_exceeded', string.format(form, tonumber(deadline) - tonumber(created))})
  end_entry(id, 'failed')
end

-- Cancels a job that was removed with a tool of RQ.
local function end_removed(id)
  local state = redis.call('HGET', job_key(id), 'state')
  if state == 'queued' or state == 'running' then
    end_job(id, 'canceled', {'removed', 'the job was removed with a tool of RQ'})
  end
  end_entry(id, 'canceled')
end
