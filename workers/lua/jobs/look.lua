#!lua flags=allow-oom
-- Reads the status of a job, and pins the result of one that succeeded.
-- Runs in a full Redis too: what is there is answered, and a pin is small and short.
-- ARGV: 1 job id, 2 end of the record that the client has, 3 caller that requests the job just now or ''
-- Returns: {1 if pinned else 0, status as a flat list, or nil where it ended at the given moment}.
-- @include lib/keys
-- @include lib/locks
-- @include lib/position
-- @include lib/requesters

local id, known_end, requester = unpack(ARGV)
local state, finished_at = unpack(redis.call('HMGET', job_key(id), 'state', 'finished_at'))
if not state then return {0, {}} end
if state ~= 'succeeded' then return {0, job_status(id)} end
local pinned = is_held(KEY.DELETION_LOCK_PREFIX .. id, LIMIT.DELETION_LOCK_S) and 0 or 1
if pinned == 1 then
  redis.call('SET', KEY.PIN_PREFIX .. id, 1, 'EX', LIMIT.PIN_S)
  if requester ~= '' then
    redis.call('SREM', KEY.FORGOTTEN, id)
    note_requester(id, requester, true)
  end
end
return {pinned, finished_at ~= known_end and redis.call('HGETALL', job_key(id)) or false}
