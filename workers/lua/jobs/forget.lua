#!lua flags=allow-oom
-- Forgets a job, or the part of one caller in it, and locks its artifacts for deletion.
-- ARGV: 1 job id, 2 token of the deletion lock, 3 whether only if it is to be forgotten still (1 or 0), 4
--   caller or '' for everybody
-- Returns: '' when the artifacts may be deleted; 'wanted': it is not to be forgotten any more; 'shared':
--   other callers keep it; 'stopping': its run has to stop first; 'locked': somebody else deletes.
-- @include lib/batches
-- @include lib/clock
-- @include lib/ending
-- @include lib/keys
-- @include lib/locks
-- @include lib/waiting
-- @include lib/webhooks

local id, token, again, caller = unpack(ARGV)
local own, entry = job_key(id), entry_key(id)
for _, key in ipairs({own, entry}) do -- one of another type cannot be read, and goes
  if redis.call('TYPE', key).ok ~= 'hash' then redis.call('DEL', key) end
end
if caller ~= '' then
  redis.call('HDEL', requesters_key(id), caller)
  redis.call('ZREM', requested_key(caller), id)
  drop_subscriptions(id, caller)
  for _, mark in ipairs(redis.call('HVALS', requesters_key(id))) do
    if mark == '' then
      withdraw_from_batches(id, caller)
      return redis.call('HGET', own, 'state') == 'running' and 'stopping' or 'shared'
    end
  end
end
if again == '1' and redis.call('SISMEMBER', KEY.FORGOTTEN, id) == 0 then return 'wanted' end
redis.call('SADD', KEY.FORGOTTEN, id)
local state, status = redis.call('HGET', own, 'state'), redis.call('HGET', entry, 'status')
if state == 'running' or status == 'started' then
  if state then redis.call('HSETNX', own, 'cancel_requested', NOW_TEXT) end
  redis.call('PUBLISH', KEY.CANCEL_CHANNEL, id)
  return 'stopping'
end
if is_held(KEY.DELETION_LOCK_PREFIX .. id, LIMIT.DELETION_LOCK_S) then return 'locked' end
redis.call('SET', KEY.DELETION_LOCK_PREFIX .. id, token, 'EX', LIMIT.DELETION_LOCK_S)
dequeue(id)
redis.call('LREM', RQ.INTERMEDIATE, 0, id)
if state == 'queued' then end_job(id, 'canceled') end
for _, index in ipairs({RQ.FINISHED, RQ.FAILED, RQ.CANCELED, KEY.JOBS}) do redis.call('ZREM', index, id) end
redis.call('DEL', own, entry, RQ.RESULTS_PREFIX .. id, RQ.EXECUTIONS_PREFIX .. id, KEY.PIN_PREFIX .. id,
  requesters_key(id), events_key(id), watched_key(id), subscriptions_key(id))
return ''
