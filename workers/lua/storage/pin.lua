#!lua flags=allow-oom
-- Pins the stored result of a job.
-- Runs in a full Redis too: what needs no computing is answered all the same, and a pin is small and short.
-- ARGV: 1 job id, 2 whether the job is requested just now (1 or 0), and so is not to be forgotten
-- Returns: 1, or 0 where the result is being deleted.
-- @include lib/locks

local id, requested = unpack(ARGV)
if is_held(KEY.DELETION_LOCK_PREFIX .. id, LIMIT.DELETION_LOCK_S) then return 0 end
redis.call('SET', KEY.PIN_PREFIX .. id, 1, 'EX', LIMIT.PIN_S)
if requested == '1' then redis.call('SREM', KEY.FORGOTTEN, id) end
return 1
