#!lua flags=allow-oom
-- Pops the next jobs in the order of the fair queue.
-- Of the models, the heads; the least start goes. What may not run is dropped on the way, so many in one
-- script at most, and the caller comes again for more: a script keeps others from Redis as long as it runs.
-- ARGV: 1 number of jobs, 2… models; none: any
-- Returns: {1 if done else 0, job ids}.
-- @include lib/clock
-- @include lib/ending
-- @include lib/fair_queue
-- @include lib/guard
-- @include lib/keys
-- @include lib/waiting

local count = unpack(ARGV)
local models = {unpack(ARGV, 2)}
count = tonumber(count)
local MAX_DROPPED = 100

local function head_of(priority, model, offset)
  local first = redis.call('ZRANGE', ready_key(priority, model), 0, 0, 'WITHSCORES')
  if not first[1] then return nil end
  return {model = model, member = first[1], score = tonumber(first[2]), offset = offset}
end

-- The head of a model; one whose index cannot be read is left out, and janitors queue its jobs anew.
local function readable_head(priority, model, offset)
  return guarded('models', model, function()
    redis.call('HDEL', offsets_key(priority), model)
    redis.call('DEL', ready_key(priority, model))
  end, head_of, priority, model, tonumber(offset) or 0)
end

local function heads_of(priority)
  local heads = {}
  if #models == 0 then
    local found = redis.call('HGETALL', offsets_key(priority))
    for i = 1, #found, 2 do heads[#heads + 1] = readable_head(priority, found[i], found[i + 1]) end
    return heads
  end
  if redis.call('EXISTS', offsets_key(priority)) == 0 then return heads end
  for i, offset in ipairs(redis.call('HMGET', offsets_key(priority), unpack(models))) do
    if offset then heads[#heads + 1] = readable_head(priority, models[i], offset) end
  end
  return heads
end

local function least(heads)
  local best
  for i, head in ipairs(heads) do
    head.start = head.score + head.offset
    local other = heads[best]
    if not other or head.start < other.start
      or (head.start == other.start and head.member < other.member) then best = i end
  end
  return best
end

-- A head behind the clock fell behind with its model, unless it was given back.
local function caught_up(priority, head)
  local clock = clock_of(priority)
  if head.start >= clock then return end
  head.offset = catch_up(priority, head.model, head.offset, clock)
  head.start = head.score + head.offset
end

-- Takes the head off every list; whether it may run.
local function take_off(priority, head)
  local id = string.sub(head.member, 18)
  local flow, caller, cost, deadline =
    unpack(redis.call('HMGET', job_key(id), 'flow', 'caller', 'cost', 'deadline_at'))
  redis.call('ZREM', ready_key(priority, head.model), head.member)
  redis.call('LREM', RQ.QUEUE, 1, id)
  unlist_caller(id, caller)
  local there = redis.call('HGET', entry_key(id), 'status') == 'queued'
  local late = deadline and tonumber(deadline) <= NOW
  if there and not late then
    advance(priority, head.model, head.score, head.start, flow, tonumber(cost or 0))
    redis.call('RPUSH', RQ.INTERMEDIATE, id)
  end
  count_down(priority, head.model, flow)
  if there and not late then return id end
  redis.call('ZREM', KEY.DEADLINES, id)
  if there then expire_waiting(id) else end_removed(id) end
  return nil
end

local popped, looked = {}, 0
for _, priority in ipairs(PRIORITIES) do
  local heads = heads_of(priority)
  while #popped < count and #heads > 0 do
    if looked >= MAX_DROPPED + count then return {0, popped} end
    looked = looked + 1
    local best = least(heads)
    local head = heads[best]
    caught_up(priority, head)
    popped[#popped + 1] = guarded('waiting jobs', string.sub(head.member, 18),
      function() drop_from_index(priority, head.model, head.member) end, take_off, priority, head)
    local offset = redis.call('HGET', offsets_key(priority), head.model)
    local following = offset and readable_head(priority, head.model, offset)
    if following then heads[best] = following else table.remove(heads, best) end
  end
end
return {1, popped}
