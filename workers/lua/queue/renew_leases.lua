#!lua flags=allow-oom
-- Renews leases: the heartbeat of a process.
-- ARGV: 1 seconds of the lease, 2… leases, 'job:execution'
-- Returns: for each {1 if held else 0, 1 if the job is to be canceled else 0, deadline or ''}.
-- @include lib/clock
-- @include lib/guard
-- @include lib/keys
-- @include lib/rq

local lease_s = unpack(ARGV)
local replies, rq_now = {}, rq_time()
local function renew(member)
  local id, cancel, deadline = string.match(member, '^(.*):[^:]+$')
  redis.call('ZADD', RQ.LEASES, NOW + lease_s, member)
  redis.call('HSET', RQ.EXECUTION_PREFIX .. member, 'last_heartbeat', NOW_TEXT)
  redis.call('HSET', entry_key(id), 'last_heartbeat', rq_now)
  cancel, deadline = unpack(redis.call('HMGET', job_key(id), 'cancel_requested', 'deadline_at'))
  return {1, cancel and 1 or 0, deadline or ''}
end
for _, member in ipairs({unpack(ARGV, 2)}) do
  local reply = redis.call('ZSCORE', RQ.LEASES, member)
    and guarded('leases', member, function() redis.call('ZREM', RQ.LEASES, member) end, renew, member)
  replies[#replies + 1] = reply or {0, 0, ''}
end
return replies
