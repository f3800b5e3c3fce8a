#!lua flags=allow-oom
-- Locks the artifacts of a job for deletion.
-- The record of a job that succeeded goes in the same step: nobody is told of an image that is about to go. A
-- job that failed or was canceled promised none, and its record stays to say why.
-- ARGV: 1 job id, 2 token, 3 whether only damaged files are removed (1 or 0): no pin protects them, the
--   record stays
-- Returns: '' when locked; 'pinned'; 'underway': the job waits or runs; 'locked': somebody else deletes.
-- @include lib/keys
-- @include lib/locks

local id, token, damaged = unpack(ARGV)
local own, entry = job_key(id), entry_key(id)
if damaged == '0' and is_held(KEY.PIN_PREFIX .. id, LIMIT.PIN_S) then return 'pinned' end
local state = redis.call('HGET', own, 'state')
local status = redis.call('HGET', entry, 'status')
if state == 'queued' or state == 'running' or status == 'queued' or status == 'started' then
  return 'underway'
end
if is_held(KEY.DELETION_LOCK_PREFIX .. id, LIMIT.DELETION_LOCK_S) then return 'locked' end
redis.call('SET', KEY.DELETION_LOCK_PREFIX .. id, token, 'EX', LIMIT.DELETION_LOCK_S)
if damaged == '0' and state == 'succeeded' then
  redis.call('DEL', own, entry, RQ.RESULTS_PREFIX .. id)
  redis.call('ZREM', RQ.FINISHED, id)
end
return ''
