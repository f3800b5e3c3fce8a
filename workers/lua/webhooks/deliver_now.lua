#!lua flags=allow-oom
-- Makes the delivery for a job that had succeeded before it was requested.
-- ARGV: 1 job id, 2 caller, 3 URL, 4 activation or ''
-- Returns: nothing.
-- @include lib/webhooks

local id, caller, url, activation = unpack(ARGV)
local details = activation ~= '' and {'activation', activation} or {}
subscribe('visualization', id, caller, url, 'succeeded', details)
