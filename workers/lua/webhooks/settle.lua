#!lua flags=allow-oom
-- Records the outcome of an attempt to deliver.
-- ARGV: 1 delivery id, 2 token, 3 state, 4 HTTP status or '', 5 error or '', 6 seconds until the next attempt
-- Returns: 1, or 0 where the claim was lost.
-- @include lib/clock
-- @include lib/keys
-- @include lib/webhooks

local id, token, state, status, problem, wait_s = unpack(ARGV)
local key = delivery_key(id)
local claim, receiver = unpack(redis.call('HMGET', key, 'claim', 'receiver'))
if claim ~= token then return 0 end
redis.call('HDEL', key, 'claim', 'next_at')
redis.call('HSET', key, 'state', state, 'tried_at', NOW_TEXT, 'status', status, 'error', problem)
redis.call('EXPIRE', key, LIMIT.FINISHED_TTL_S)
if state == 'pending' then
  redis.call('HSET', key, 'next_at', exact(NOW + wait_s))
  redis.call('ZADD', due_deliveries_key(receiver), exact(NOW + wait_s), id)
else
  redis.call('ZREM', due_deliveries_key(receiver), id)
end
plan_receiver(receiver)
return 1
