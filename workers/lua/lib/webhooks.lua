-- Webhooks: subscriptions of callers to the end of a job or batch, and the deliveries that they become.
--
-- A subscription is a field "caller URL" of a hash beside the job or batch; its value is empty while the
-- delivery is to come, or when it was made. The script that ends a job or batch makes its deliveries in the
-- same step, so that no end is without its event, whoever dies (the transactional outbox pattern). A delivery
-- waits among those of its receiver, scored by when it is due; receivers are scored by their first.
-- @include lib/clock
-- @include lib/keys
-- @include lib/locks

-- Scores a receiver by its first delivery.
local function plan_receiver(receiver)
  local first = redis.call('ZRANGE', due_deliveries_key(receiver), 0, 0, 'WITHSCORES')
  if first[2] then
    redis.call('ZADD', KEY.RECEIVERS, first[2], receiver)
  else
    redis.call('ZREM', KEY.RECEIVERS, receiver)
  end
end

local function drop_delivery(delivery)
  local receiver, caller = unpack(redis.call('HMGET', delivery_key(delivery), 'receiver', 'caller'))
  if receiver then
    redis.call('ZREM', due_deliveries_key(receiver), delivery)
    plan_receiver(receiver)
    redis.call('ZREM', deliveries_of_key(caller), delivery)
  end
  redis.call('ZREM', KEY.DELIVERIES, delivery)
  redis.call('DEL', delivery_key(delivery))
end

-- Drops deliveries that are too old or too many.
local function trim_deliveries(caller)
  local log = deliveries_of_key(caller)
  for _, index in ipairs({log, KEY.DELIVERIES}) do
    redis.call('ZREMRANGEBYSCORE', index, '-inf', '(' .. exact(NOW - LIMIT.FINISHED_TTL_S))
  end
  for _, delivery in ipairs(redis.call('ZRANGE', log, 0, -LIMIT.MAX_DELIVERIES - 1)) do
    redis.call('ZREM', log, delivery)
    drop_delivery(delivery)
  end
  redis.call('EXPIRE', log, LIMIT.FINISHED_TTL_S)
end

-- `kind`: of the job, or `batch`. `details`: names and values of what the event contains beside the state.
local function make_delivery(kind, subject, caller, url, state, details)
  local receiver = string.match(url, '^(%a+://[^/?#]+)')
  if not receiver then return end
  receiver = string.lower(receiver)
  local id = string.sub(redis.sha1hex(table.concat({kind, subject, caller, url, NOW_TEXT}, ' ')), 1, 32)
  redis.call('HSET', delivery_key(id), 'kind', kind, 'subject', subject, 'caller', caller, 'url', url,
    'receiver', receiver, 'ended', state, 'created_at', NOW_TEXT, 'state', 'pending', 'attempts', 0,
    'tried', 0, 'next_at', NOW_TEXT, unpack(details))
  redis.call('EXPIRE', delivery_key(id), LIMIT.FINISHED_TTL_S)
  redis.call('SET', sent_key(kind, subject, caller, url), 1, 'EX', LIMIT.WEBHOOK_REPEAT_S)
  redis.call('ZADD', due_deliveries_key(receiver), NOW_TEXT, id)
  plan_receiver(receiver)
  redis.call('ZADD', KEY.DELIVERIES, NOW_TEXT, id)
  redis.call('ZADD', deliveries_of_key(caller), NOW_TEXT, id)
  trim_deliveries(caller)
end

-- What an event contains of the record of its subject: of a batch, or else of a job, whatever its kind.
local EVENT_SOURCES = {
  batch = {prefix = KEY.BATCH_PREFIX, names = {'total', 'succeeded', 'failed', 'canceled', 'problem'}},
}
local JOB_SOURCE = {prefix = KEY.JOB_PREFIX, names = {'activation', 'problem'}}

local function event_details(kind, subject)
  local details, source = {}, EVENT_SOURCES[kind] or JOB_SOURCE
  for i, value in ipairs(redis.call('HMGET', source.prefix .. subject, unpack(source.names))) do
    if value then
      details[#details + 1] = source.names[i]
      details[#details + 1] = value
    end
  end
  return details
end

-- Makes the deliveries of an end, each once; `only`: of one caller alone.
local function make_deliveries(kind, subject, state, only)
  local key = subscriptions_key(subject)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then return end
  local details = event_details(kind, subject)
  for i = 1, #flat, 2 do
    local caller, url = string.match(flat[i], '^(%S+) (.*)$')
    if flat[i + 1] == '' and (not only or only == caller) then
      make_delivery(kind, subject, caller, url, state, details)
      redis.call('HSET', key, flat[i], NOW_TEXT)
    end
  end
  if not only then redis.call('EXPIRE', key, LIMIT.FINISHED_TTL_S) end
end

-- Calls `act` with each subscription of the caller and whether its delivery is to come; counts those.
local function each_subscription(subject, caller, act)
  local flat, waiting = redis.call('HGETALL', subscriptions_key(subject)), 0
  for i = 1, #flat, 2 do
    if string.match(flat[i], '^(%S+) ') == caller then
      if flat[i + 1] == '' then waiting = waiting + 1 end
      if act then act(flat[i], flat[i + 1] == '') end
    end
  end
  return waiting
end

-- Drops the subscriptions of a caller.
local function drop_subscriptions(subject, caller)
  local key = subscriptions_key(subject)
  each_subscription(subject, caller, function(field) redis.call('HDEL', key, field) end)
end

-- A caller that subscribed to the last run of the job is subscribed to the next.
local function renew_subscriptions(subject, caller)
  local key = subscriptions_key(subject)
  each_subscription(subject, caller, function(field) redis.call('HSET', key, field, '') end)
  redis.call('PERSIST', key)
end

-- Whether the caller has as many subscriptions as it may, and this would be another one.
local function subscriptions_full(subject, caller, url)
  if url == '' then return false end
  if redis.call('HGET', subscriptions_key(subject), caller .. ' ' .. url) == '' then return false end
  return each_subscription(subject, caller) >= LIMIT.MAX_WEBHOOKS
end

-- Subscribes a URL. `ended`: the state of what has ended already; then the delivery is made at once.
local function subscribe(kind, subject, caller, url, ended, details)
  if url == '' then return end
  if ended then
    if not is_held(sent_key(kind, subject, caller, url), LIMIT.WEBHOOK_REPEAT_S) then
      make_delivery(kind, subject, caller, url, ended, details or event_details(kind, subject))
    end
    return
  end
  -- Those of earlier runs make room: only `renew_subscriptions` looks at them.
  local key = subscriptions_key(subject)
  local sent = {}
  each_subscription(subject, caller, function(field, waits) if not waits then sent[#sent + 1] = field end end)
  if #sent >= LIMIT.MAX_WEBHOOKS then redis.call('HDEL', key, unpack(sent)) end
  redis.call('HSET', key, caller .. ' ' .. url, '')
  redis.call('PERSIST', key)
end
