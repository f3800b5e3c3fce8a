#!lua flags=allow-oom
-- Claims deliveries that are due, each for the seconds of a lease.
-- Of each receiver so many that no more than `most_each` are under way; each receiver gets one before any
-- gets another, so that a few slow ones with much to come do not take all places.
-- ARGV: 1 most deliveries, 2 most under way to each receiver, 3 seconds of the lease, 4 token, 5…
--   receivers, each followed by how many deliveries to it are under way
-- Returns: {id, fields as a flat list} of each.
-- @include lib/clock
-- @include lib/guard
-- @include lib/keys
-- @include lib/webhooks

-- Receivers that are looked at for one claim.
local MAX_RECEIVERS = 256

local most, most_each, lease_s, token = unpack(ARGV)
local busy, claimed = {}, {}
for i = 5, #ARGV, 2 do busy[ARGV[i]] = tonumber(ARGV[i + 1]) end
most = tonumber(most)
local function take(receiver, id)
  if redis.call('HGET', delivery_key(id), 'state') ~= 'pending' then
    redis.call('ZREM', due_deliveries_key(receiver), id)
    return
  end
  redis.call('ZADD', due_deliveries_key(receiver), exact(NOW + lease_s), id)
  redis.call('HSET', delivery_key(id), 'claim', token, 'claimed_at', NOW_TEXT)
  redis.call('HINCRBY', delivery_key(id), 'attempts', 1)
  redis.call('HINCRBY', delivery_key(id), 'tried', 1)
  busy[receiver] = (busy[receiver] or 0) + 1
  claimed[#claimed + 1] = {id, redis.call('HGETALL', delivery_key(id))}
end
-- The next delivery of a receiver that was made, claimed or tried in the future: the clock was set back.
local function hurry(receiver)
  local id = redis.call('ZRANGE', due_deliveries_key(receiver), 0, 0)[1]
  if not id then return end
  for _, name in ipairs({'created_at', 'claimed_at', 'tried_at'}) do
    if (tonumber(redis.call('HGET', delivery_key(id), name) or 0) or 0) > NOW then
      redis.call('HSET', delivery_key(id), name, NOW_TEXT)
      redis.call('ZADD', due_deliveries_key(receiver), NOW_TEXT, id)
    end
  end
  plan_receiver(receiver)
end
local later = redis.call('ZRANGEBYSCORE', KEY.RECEIVERS, '(' .. NOW_TEXT, '+inf', 'LIMIT', 0, MAX_RECEIVERS)
local function drop(receiver)
  return function()
    redis.call('ZREM', KEY.RECEIVERS, receiver)
    redis.call('DEL', due_deliveries_key(receiver))
  end
end
for _, receiver in ipairs(later) do guarded('deliveries', receiver, drop(receiver), hurry, receiver) end
local function take_some(receiver, room)
  local key = due_deliveries_key(receiver)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', NOW_TEXT, 'LIMIT', 0, room)) do
    guarded('deliveries', id, function() redis.call('ZREM', key, id) end, take, receiver, id)
  end
  plan_receiver(receiver)
end
local receivers = redis.call('ZRANGEBYSCORE', KEY.RECEIVERS, '-inf', NOW_TEXT, 'LIMIT', 0, MAX_RECEIVERS)
for _, share in ipairs({1, tonumber(most_each)}) do
  for _, receiver in ipairs(receivers) do
    local room = math.min(most - #claimed, share - (busy[receiver] or 0))
    if room > 0 then guarded('deliveries', receiver, drop(receiver), take_some, receiver, room) end
  end
end
return claimed
