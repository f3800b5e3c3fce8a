-- Start-time fair queueing: the order in which waiting jobs start.
--
-- P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queueing", SIGCOMM 1996, sections 2 and 2.1: a job of a
-- flow starts at max(clock, finish of the flow's last job) and finishes its cost later; the least start goes
-- first; the clock is the start of the last job that went. A flow is a caller, or one batch of a caller. Each
-- priority has a clock of its own. Guarantees and their bounds: docs/queue.md.
--
-- Three things are not in the paper, because its server can send any packet:
--
-- - A worker serves some models only, so that jobs of one model may fall behind the clock. The start of a new
--   job, the clock, would then lie behind all of them. So the starts of a model are stored relative to an
--   offset, which grows by as much as the model is behind (`catch_up`): the order within it stays, and a new
--   job is next but for one job of each other flow. The last finish of a flow is stored on the clock and
--   within the model.
-- - Equal starts go by arrival: with many callers of one job each the clock stands still, and any other order
--   could pass one over for ever.
-- - A flow whose waiting jobs were canceled owes no more than the finish of its last job that started.
-- @include lib/clock
-- @include lib/keys

local PRIORITIES = {'interactive', 'batch'}
local function clock_of(priority) return tonumber(redis.call('HGET', KEY.CLOCK, priority) or 0) end

local function catch_up(priority, model, offset, clock)
  local front = redis.call('HGET', fronts_key(priority), model)
  local after = front and '(' .. front or '-inf' -- what was given back lies behind and shall stay there
  local key = ready_key(priority, model)
  local head = redis.call('ZRANGEBYSCORE', key, after, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if not head[2] or head[2] + offset >= clock then return offset end
  redis.call('HSET', offsets_key(priority), model, exact(clock - head[2]))
  return clock - head[2]
end

local function new_turn(priority, model, flow, cost)
  local clock = clock_of(priority)
  local finish, waits = unpack(redis.call('HMGET', flows_key(priority), 'f:' .. flow, 'n:' .. flow))
  if finish and not waits then redis.call('HSET', flows_key(priority), 's:' .. flow, finish) end
  local start = math.max(clock, tonumber(finish or 0))
  local offset = tonumber(redis.call('HGET', offsets_key(priority), model))
  if offset then
    offset = catch_up(priority, model, offset, clock)
    local within = redis.call('HGET', flows_key(priority, model), 'f:' .. flow)
    if within then start = math.max(start, within + offset) end
  end
  redis.call('HSET', flows_key(priority), 'f:' .. flow, exact(start + cost))
  redis.call('HSET', flows_key(priority, model), 'f:' .. flow, exact(start + cost - (offset or 0)))
  return start, string.format('%016.0f', redis.call('INCR', KEY.ARRIVALS))
end

-- The turn of a job as its record has it, or nil.
local function read_turn(id)
  local priority, model, start, arrival, flow =
    unpack(redis.call('HMGET', job_key(id), 'priority', 'model', 'turn', 'arrival', 'flow'))
  if not (priority and model and start and arrival and flow) then return nil end
  return {priority = priority, model = model, start = tonumber(start), arrival = arrival, flow = flow}
end

-- Gives a job a new turn.
local function assign_turn(id, priority, model, flow, cost)
  local start, arrival = new_turn(priority, model, flow, cost)
  redis.call('HSET', job_key(id), 'priority', priority, 'model', model, 'flow', flow, 'turn', exact(start),
    'arrival', arrival)
  return {priority = priority, model = model, start = start, arrival = arrival, flow = flow}
end

local function add_to_index(id, turn, back)
  local offset = tonumber(redis.call('HGET', offsets_key(turn.priority), turn.model))
  if not offset then
    offset = 0
    redis.call('HSET', offsets_key(turn.priority), turn.model, 0)
  end
  local score = turn.start - offset
  redis.call('ZADD', ready_key(turn.priority, turn.model), exact(score), turn.arrival .. ':' .. id)
  redis.call('HINCRBY', flows_key(turn.priority), 'n:' .. turn.flow, 1)
  redis.call('HINCRBY', flows_key(turn.priority, turn.model), 'n:' .. turn.flow, 1)
  if back then
    local front = tonumber(redis.call('HGET', fronts_key(turn.priority), turn.model))
    if not front or score > front then
      redis.call('HSET', fronts_key(turn.priority), turn.model, exact(score))
    end
  end
end

local function count_down(priority, model, flow)
  local all, within = flows_key(priority), flows_key(priority, model)
  if redis.call('EXISTS', ready_key(priority, model)) == 0 then
    redis.call('HDEL', offsets_key(priority), model)
    redis.call('HDEL', fronts_key(priority), model)
    redis.call('DEL', within)
  elseif flow and redis.call('HINCRBY', within, 'n:' .. flow, -1) <= 0 then
    redis.call('HDEL', within, 'n:' .. flow, 'f:' .. flow)
  end
  if flow and redis.call('HINCRBY', all, 'n:' .. flow, -1) <= 0 then
    local paid = redis.call('HGET', all, 's:' .. flow)
    redis.call('HDEL', all, 'n:' .. flow, 's:' .. flow, 'f:' .. flow)
    if paid then redis.call('HSET', all, 'f:' .. flow, paid) end
  end
end

local function remove_from_index(id, turn)
  local member = turn.arrival .. ':' .. id
  if redis.call('ZREM', ready_key(turn.priority, turn.model), member) == 0 then return false end
  count_down(turn.priority, turn.model, turn.flow)
  return true
end

-- Takes out of the index what cannot be taken out by its record.
local function drop_from_index(priority, model, member)
  redis.call('ZREM', ready_key(priority, model), member)
  count_down(priority, model)
  redis.call('LREM', RQ.QUEUE, 0, string.sub(member, 18))
end

-- Of the job that starts: the clock, and what its flow has had.
local function advance(priority, model, score, start, flow, cost)
  if start > clock_of(priority) then redis.call('HSET', KEY.CLOCK, priority, exact(start)) end
  local front = tonumber(redis.call('HGET', fronts_key(priority), model))
  if not front or score > front then redis.call('HSET', fronts_key(priority), model, exact(score)) end
  if not flow then return end
  local paid = tonumber(redis.call('HGET', flows_key(priority), 's:' .. flow))
  if not paid or start + cost > paid then
    redis.call('HSET', flows_key(priority), 's:' .. flow, exact(start + cost))
  end
end
