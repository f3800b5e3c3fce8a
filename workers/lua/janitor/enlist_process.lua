#!lua flags=allow-oom
-- Enlists a worker process as present, and takes back losses that it was wrongly counted.
-- ARGV: 1 worker
-- Returns: nothing.
-- @include lib/guard
-- @include lib/keys

local worker = unpack(ARGV)
redis.call('HSET', KEY.PRESENCE, worker, '')
local missed = redis.pcall('SMEMBERS', KEY.MISSED_PREFIX .. worker)
for _, id in ipairs(missed.err and {} or missed) do
  guarded('lost jobs', id, nil, function()
    local state, losses = unpack(redis.call('HMGET', job_key(id), 'state', 'losses'))
    if (state == 'queued' or state == 'running') and tonumber(losses or 0) > 0 then
      redis.call('HINCRBY', job_key(id), 'losses', -1)
    end
  end)
end
redis.call('DEL', KEY.MISSED_PREFIX .. worker)
