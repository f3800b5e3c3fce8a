#!lua flags=allow-oom
-- Enlists a worker process as present, and takes back losses that it was wrongly counted.
-- ARGV: 1 worker
-- Returns: nothing.
-- @include lib/keys

local worker = unpack(ARGV)
redis.call('HSET', KEY.PRESENCE, worker, '')
for _, id in ipairs(redis.call('SMEMBERS', KEY.MISSED_PREFIX .. worker)) do
  local state, losses = unpack(redis.call('HMGET', job_key(id), 'state', 'losses'))
  if (state == 'queued' or state == 'running') and tonumber(losses or 0) > 0 then
    redis.call('HINCRBY', job_key(id), 'losses', -1)
  end
end
redis.call('DEL', KEY.MISSED_PREFIX .. worker)
