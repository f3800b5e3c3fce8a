#!lua flags=allow-oom
-- Notes that a caller requested a job that the store answers.
-- ARGV: 1 job id, 2 caller
-- Returns: nothing.
-- @include lib/requesters

local id, caller = unpack(ARGV)
note_requester(id, caller, true)
