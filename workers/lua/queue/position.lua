#!lua flags=no-writes
-- Counts the jobs before one that waits.
-- ARGV: 1 job id
-- Returns: the number, -1 when it does not wait.
-- @include lib/position

local id = unpack(ARGV)
return position(id)
