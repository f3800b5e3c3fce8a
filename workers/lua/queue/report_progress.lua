#!lua flags=allow-oom
-- Writes fields of the record of a job that a run holds; fields that begin with `step` are published as
-- progress.
-- ARGV: 1 job id, 2 lease, 3 seconds after which the record expires or '', 4 seconds to the expected end or
--   '', 5… fields and values
-- Returns: 0 where the lease is lost, 1, or 2 where somebody watches the job.
-- @include lib/clock
-- @include lib/events
-- @include lib/keys
-- @include lib/locks

local id, member, ttl_s, remaining_s = unpack(ARGV)
if not redis.call('ZSCORE', RQ.LEASES, member) then return 0 end
redis.call('HSET', job_key(id), unpack(ARGV, 5))
if ttl_s ~= '' then redis.call('EXPIRE', job_key(id), ttl_s) end
if remaining_s ~= '' then redis.call('HSET', job_key(id), 'expected_at', exact(NOW + remaining_s)) end
if ARGV[5] == 'step' then publish_progress(id) end
return is_held(watched_key(id), LIMIT.WATCHED_S) and 2 or 1
