#!lua flags=allow-oom
-- Drops expired entries from indexes: some of the jobs each time, all in the end (`ZSCAN`), and RQ's
-- registries.
-- ARGV: none
-- Returns: nothing.
-- @include lib/clock
-- @include lib/keys
-- @include lib/locks

-- Jobs that are looked at each time, in some 2 ms.
local COUNTED_JOBS = 1000

local cursor = redis.call('HGET', KEY.SWEEPS, 'cursor') or '0'
local next_cursor, entries = unpack(redis.call('ZSCAN', KEY.JOBS, cursor, 'COUNT', COUNTED_JOBS))
if next_cursor ~= '0' then
  redis.call('HSET', KEY.SWEEPS, 'cursor', next_cursor)
elseif cursor ~= '0' then
  redis.call('HDEL', KEY.SWEEPS, 'cursor')
end
for i = 1, #entries, 2 do
  if redis.call('EXISTS', job_key(entries[i])) == 0 then redis.call('ZREM', KEY.JOBS, entries[i]) end
end
for _, registry in ipairs({RQ.FINISHED, RQ.FAILED, RQ.CANCELED}) do
  redis.call('ZREMRANGEBYSCORE', registry, 0, time[1])
end
for _, worker in ipairs(redis.call('SMEMBERS', RQ.WORKERS)) do
  if not is_held(worker, LIMIT.SLOT_TTL_S) then
    redis.call('SREM', RQ.ALL_WORKERS, worker)
    redis.call('SREM', RQ.WORKERS, worker)
  end
end
