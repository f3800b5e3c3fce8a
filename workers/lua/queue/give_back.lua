#!lua flags=allow-oom
-- Ends a lease and puts its job back to its turn; no loss is counted.
-- ARGV: 1 lease
-- Returns: as `release_lease`.
-- @include lib/leases

local lease = unpack(ARGV)
if not redis.call('ZSCORE', RQ.LEASES, lease) then return 'stale' end
return release_lease(lease, false)
