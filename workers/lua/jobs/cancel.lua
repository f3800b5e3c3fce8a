#!lua flags=allow-oom
-- Cancels a job, or withdraws one caller from it.
-- ARGV: 1 job id, 2 caller or '' for everybody
-- Returns: the fields of the record, a flat list.
-- @include lib/keys
-- @include lib/withdrawal

local id, caller = unpack(ARGV)
withdraw(id, caller)
return redis.call('HGETALL', job_key(id))
