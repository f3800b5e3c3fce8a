"""Who is to be told when a job or a batch ends, and what is on its way: keys in Redis, and the Lua for both.

A hash beside each job and batch says which caller wants which URL told: caller and URL -> nothing while that
is to come, or when it was. The scripts that end a job or batch make a delivery of each in the same step, so
that no end is without its event, whoever dies. A delivery is a hash. It waits, scored by when it is due,
among those of its receiver; receivers are scored by their first. One that was claimed is due again when the
lease on it ends (`workers.queue.deliveries`).
"""

from __future__ import annotations

from workers.batches.batching import batch_key

#: Receivers, scored by when the first delivery to them is due.
RECEIVERS_KEY = "proxygrad:deliveries:receivers"
#: Every delivery of the last week, scored by when its event happened; and those of one caller.
LOG_KEY = "proxygrad:deliveries"
#: URLs that one caller may have told of one job.
MOST_HOOKS = 16
#: Deliveries of one caller that are kept, the newest; an older one goes, delivered or not.
MOST_KEPT = 10_000
#: Asked again within so many seconds, what has an answer is told once: the first request's answer was lost.
REPEAT_S = 60


def hooks_key(subject: str) -> str:
    """Who wants to be told of a job or a batch, a hash."""
    return f"proxygrad:hooks:{subject}"


def delivery_key(delivery_id: str) -> str:
    """A delivery, a hash."""
    return f"proxygrad:delivery:{delivery_id}"


def due_key(receiver: str) -> str:
    """The deliveries to a receiver (scheme, host and port), scored by when they are due."""
    return f"proxygrad:deliveries:due:{receiver}"


def log_key(caller: str) -> str:
    """The deliveries of a caller."""
    return f"{LOG_KEY}:of:{caller}"


#: Functions for Lua, in the library of `workers.broker.scripts`, before what ends jobs and batches.
TELLING_HOOKS = f"""
local RECEIVERS, DELIVERIES, REPEAT_S, MOST_HOOKS =
  '{RECEIVERS_KEY}', '{LOG_KEY}', {REPEAT_S}, {MOST_HOOKS}
local function hooks_key(subject) return '{hooks_key("")}' .. subject end
local function delivery_key(delivery) return '{delivery_key("")}' .. delivery end
local function due_deliveries(receiver) return '{due_key("")}' .. receiver end
local function told_key(...) return 'proxygrad:hooked:' .. redis.sha1hex(table.concat({{...}}, ' ')) end
local function deliveries_of(caller) return '{log_key("")}' .. caller end

local function plan_receiver(receiver)
  local first = redis.call('ZRANGE', due_deliveries(receiver), 0, 0, 'WITHSCORES')
  if first[2] then
    redis.call('ZADD', RECEIVERS, first[2], receiver)
  else
    redis.call('ZREM', RECEIVERS, receiver)
  end
end

local function drop_delivery(delivery)
  local receiver, caller = unpack(redis.call('HMGET', delivery_key(delivery), 'receiver', 'caller'))
  if receiver then
    redis.call('ZREM', due_deliveries(receiver), delivery)
    plan_receiver(receiver)
    redis.call('ZREM', deliveries_of(caller), delivery)
  end
  redis.call('ZREM', DELIVERIES, delivery)
  redis.call('DEL', delivery_key(delivery))
end

local function trim_deliveries(caller)
  local log = deliveries_of(caller)
  for _, index in ipairs({{log, DELIVERIES}}) do
    redis.call('ZREMRANGEBYSCORE', index, '-inf', '(' .. exact(NOW - KEEP_S))
  end
  for _, delivery in ipairs(redis.call('ZRANGE', log, 0, -{MOST_KEPT} - 1)) do
    redis.call('ZREM', log, delivery)
    drop_delivery(delivery)
  end
  redis.call('EXPIRE', log, KEEP_S)
end

-- `details`: names and values of what the event says beside the state.
local function send_hook(kind, subject, caller, url, state, details)
  local receiver = string.match(url, '^(%a+://[^/?#]+)')
  if not receiver then return end
  receiver = string.lower(receiver)
  local id = string.sub(redis.sha1hex(table.concat({{kind, subject, caller, url, NOW_TEXT}}, ' ')), 1, 32)
  redis.call('HSET', delivery_key(id), 'kind', kind, 'subject', subject, 'caller', caller, 'url', url,
    'receiver', receiver, 'ended', state, 'created_at', NOW_TEXT, 'state', 'pending', 'attempts', 0,
    'tried', 0, 'next_at', NOW_TEXT, unpack(details))
  redis.call('EXPIRE', delivery_key(id), KEEP_S)
  redis.call('SET', told_key(kind, subject, caller, url), 1, 'EX', REPEAT_S)
  redis.call('ZADD', due_deliveries(receiver), NOW_TEXT, id)
  plan_receiver(receiver)
  redis.call('ZADD', DELIVERIES, NOW_TEXT, id)
  redis.call('ZADD', deliveries_of(caller), NOW_TEXT, id)
  trim_deliveries(caller)
end

local function hook_details(kind, subject)
  local details = {{}}
  local key, names = own_key(subject), {{'activation', 'problem'}}
  if kind == 'batch' then
    key, names = '{batch_key("")}' .. subject, {{'total', 'succeeded', 'failed', 'canceled', 'problem'}}
  end
  for i, value in ipairs(redis.call('HMGET', key, unpack(names))) do
    if value then
      details[#details + 1] = names[i]
      details[#details + 1] = value
    end
  end
  return details
end

-- Those that are to come, or those of one caller alone, are told that it has ended; each once.
local function tell_hooks(kind, subject, state, only)
  local hooks = hooks_key(subject)
  local flat = redis.call('HGETALL', hooks)
  if #flat == 0 then return end
  local details = hook_details(kind, subject)
  for i = 1, #flat, 2 do
    local caller, url = string.match(flat[i], '^(%S+) (.*)$')
    if flat[i + 1] == '' and (not only or only == caller) then
      send_hook(kind, subject, caller, url, state, details)
      redis.call('HSET', hooks, flat[i], NOW_TEXT)
    end
  end
  if not only then redis.call('EXPIRE', hooks, KEEP_S) end
end

-- Calls `act` with each of the caller's, and whether it is to come; says how many are.
local function each_hook(subject, caller, act)
  local flat, waiting = redis.call('HGETALL', hooks_key(subject)), 0
  for i = 1, #flat, 2 do
    if string.match(flat[i], '^(%S+) ') == caller then
      if flat[i + 1] == '' then waiting = waiting + 1 end
      if act then act(flat[i], flat[i + 1] == '') end
    end
  end
  return waiting
end

-- The caller has nothing to do with it any more.
local function drop_hooks(subject, caller)
  each_hook(subject, caller, function(field) redis.call('HDEL', hooks_key(subject), field) end)
end

-- What the caller wanted told of the run before, it wants told of the next.
local function renew_hooks(subject, caller)
  each_hook(subject, caller, function(field) redis.call('HSET', hooks_key(subject), field, '') end)
  redis.call('PERSIST', hooks_key(subject))
end

-- Whether the caller has as many URLs told as it may, and this is not one of them.
local function hooks_full(subject, caller, url)
  if url == '' or redis.call('HGET', hooks_key(subject), caller .. ' ' .. url) == '' then return false end
  return each_hook(subject, caller) >= MOST_HOOKS
end

-- Notes a URL. `ended`: the state, where it has ended already; then that is told at once.
local function add_hook(kind, subject, caller, url, ended, details)
  if url == '' then return end
  if ended then
    if redis.call('EXISTS', told_key(kind, subject, caller, url)) == 0 then
      send_hook(kind, subject, caller, url, ended, details or hook_details(kind, subject))
    end
    return
  end
  -- Those of earlier runs make room: only `renew_hooks` looks at them.
  local hooks = hooks_key(subject)
  local told = {{}}
  each_hook(subject, caller, function(field, waits) if not waits then told[#told + 1] = field end end)
  if #told >= MOST_HOOKS then redis.call('HDEL', hooks, unpack(told)) end
  redis.call('HSET', hooks, caller .. ' ' .. url, '')
  redis.call('PERSIST', hooks)
end
"""
