#!lua flags=allow-oom
-- Makes the delivery for a job that had succeeded before it was requested.
-- ARGV: 1 kind of the job, 2 job id, 3 caller, 4 URL, 5 activation or ''
-- Returns: nothing.
-- @include lib/webhooks

local kind, id, caller, url, activation = unpack(ARGV)
local details = activation ~= '' and {'activation', activation} or {}
subscribe(kind, id, caller, url, 'succeeded', details)
