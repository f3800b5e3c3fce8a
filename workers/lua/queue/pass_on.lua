#!lua flags=allow-oom
-- Leaves a job to a worker that serves its model with the weights and by the method that it was requested of.
-- It waits by its exact capability then, which no other worker takes.
-- ARGV: 1 job id, 2 lease, 3 worker that leaves it
-- Returns: 'unserved' where no other live worker offers that, and the job stays with the run; else as
--   `release_lease`.
-- @include lib/keys
-- @include lib/leases
-- @include lib/offers

local id, member, worker = unpack(ARGV)
if not redis.call('ZSCORE', RQ.LEASES, member) then return 'stale' end
local capability = redis.call('HGET', job_key(id), 'exact')
if not capability then return 'unserved' end
if is_settled() and not is_offered(capability, worker) then return 'unserved' end
redis.call('HSET', job_key(id), 'model', capability)
return release_lease(member, false)
