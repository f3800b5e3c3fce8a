-- Cancellation of a job: at once while it waits, by a message to its run later.
--
-- Without a caller, for everybody. With one, that caller withdraws, and the others keep the job. The message
-- reaches the run's process within milliseconds; where it is lost, a heartbeat finds the request.
-- @include lib/batches
-- @include lib/clock
-- @include lib/ending
-- @include lib/events
-- @include lib/keys
-- @include lib/rq
-- @include lib/waiting
-- @include lib/webhooks

local function withdraw(id, caller)
  local own, requesters = job_key(id), requesters_key(id)
  local state = redis.call('HGET', own, 'state')
  if caller ~= '' and (state == 'queued' or state == 'running') then
    if redis.call('HGET', requesters, caller) == '' then redis.call('HSET', requesters, caller, NOW_TEXT) end
    for _, mark in ipairs(redis.call('HVALS', requesters)) do
      if mark == '' then
        withdraw_from_batches(id, caller)
        make_deliveries(kind_of(id), id, 'canceled', caller)
        publish_withdrawal(id, caller)
        return
      end
    end
  end
  if state == 'queued' then
    dequeue(id)
    redis.call('LREM', RQ.INTERMEDIATE, 0, id)
    end_job(id, 'canceled')
    end_entry(id, 'canceled')
  elseif state == 'running' then
    redis.call('HSETNX', own, 'cancel_requested', NOW_TEXT)
    redis.call('PUBLISH', KEY.CANCEL_CHANNEL, id)
  end
end
