#!lua flags=allow-oom
-- Publishes a preview of a job that a run holds.
-- ARGV: 1 job id, 2 lease, 3 preview as JSON
-- Returns: 0 where the lease is lost, else 1.
-- @include lib/keys

local id, member, data = unpack(ARGV)
if not redis.call('ZSCORE', RQ.LEASES, member) then return 0 end
redis.call('PUBLISH', events_key(id), '- preview ' .. data)
return 1
