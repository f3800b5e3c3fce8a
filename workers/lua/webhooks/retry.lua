#!lua flags=allow-oom
-- Makes a delivery due at once, unless it is under way.
-- ARGV: 1 delivery id
-- Returns: 1, or 0 where there is none.
-- @include lib/clock
-- @include lib/keys
-- @include lib/webhooks

local id = unpack(ARGV)
local key = delivery_key(id)
local receiver = redis.call('HGET', key, 'receiver')
if not receiver then return 0 end
if redis.call('HEXISTS', key, 'claim') == 1 then
  -- Under way, unless its gateway died: then the lease ends.
  return 1
end
redis.call('EXPIRE', key, LIMIT.FINISHED_TTL_S)
redis.call('HSET', key, 'state', 'pending', 'tried', 0, 'next_at', NOW_TEXT)
redis.call('ZADD', due_deliveries_key(receiver), NOW_TEXT, id)
plan_receiver(receiver)
return 1
