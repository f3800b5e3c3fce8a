"""What is ready to run: the next job for a worker, and how many are before a given one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import redis

from workers.broker import queue
from workers.broker.scripts import Script

# Of the models asked for, the heads; the least start goes. What nobody may run is dropped on the way, so many
# in one script at most, and the caller comes again for more: it keeps others from Redis as long as it runs.
_POP = """
local count, models = tonumber(ARGV[3]), {unpack(ARGV, 4)}
local LIMIT = 100

local function head_of(priority, model, offset)
  local first = redis.call('ZRANGE', ready_key(priority, model), 0, 0, 'WITHSCORES')
  if not first[1] then return nil end
  return {model = model, member = first[1], score = tonumber(first[2]), offset = offset}
end

local function heads_of(priority)
  local heads = {}
  if #models == 0 then
    local found = redis.call('HGETALL', offsets_key(priority))
    for i = 1, #found, 2 do heads[#heads + 1] = head_of(priority, found[i], tonumber(found[i + 1])) end
    return heads
  end
  if redis.call('EXISTS', offsets_key(priority)) == 0 then return heads end
  for i, offset in ipairs(redis.call('HMGET', offsets_key(priority), unpack(models))) do
    if offset then heads[#heads + 1] = head_of(priority, models[i], tonumber(offset)) end
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
    unpack(redis.call('HMGET', own_key(id), 'flow', 'caller', 'cost', 'deadline_at'))
  redis.call('ZREM', ready_key(priority, head.model), head.member)
  redis.call('LREM', QUEUE, 1, id)
  forget_caller(id, caller)
  local there = redis.call('HGET', entry_key(id), 'status') == 'queued'
  local late = deadline and tonumber(deadline) <= NOW
  if there and not late then
    advance(priority, head.model, head.score, head.start, flow, tonumber(cost or 0))
    redis.call('RPUSH', POPPED, id)
  end
  one_less(priority, head.model, flow)
  if there and not late then return id end
  redis.call('ZREM', DEADLINES, id)
  if there then expire_waiting(id) else remove(id) end
  return nil
end

local popped, looked = {}, 0
for _, priority in ipairs(PRIORITIES) do
  local heads = heads_of(priority)
  while #popped < count and #heads > 0 do
    if looked >= LIMIT + count then return {0, popped} end
    looked = looked + 1
    local best = least(heads)
    local head = heads[best]
    caught_up(priority, head)
    popped[#popped + 1] = take_off(priority, head)
    local offset = redis.call('HGET', offsets_key(priority), head.model)
    local following = offset and head_of(priority, head.model, tonumber(offset))
    if following then heads[best] = following else table.remove(heads, best) end
  end
end
return {1, popped}
"""

_PUT_BACK = """
local returned = 0
for _, id in ipairs({unpack(ARGV, 3)}) do
  local turn = turn_of(id)
  if redis.call('LREM', POPPED, 0, id) > 0 then
    if turn and redis.call('HGET', entry_key(id), 'status') == 'queued' then
      wait(id, turn, true)
      returned = returned + 1
    else
      remove(id)
    end
  end
end
return returned
"""

#: Functions for Lua. `position`: every model counts, as if a worker that serves them all came next; equal
#: starts in other models do not. `standing`: a record, and of one that waits its place
#: (`records.QueuePlace`). Of the workers the one that came last is looked at first.
POSITION = f"""
local SLOTS = '{queue.WORKERS_KEYS[1]}'
local function is_served(model)
  for _, worker in ipairs(redis.call('ZREVRANGE', '{queue.WORKERS_KEY}', 0, -1)) do
    local word = redis.call('GET', '{queue.WORKER_PREFIX}' .. worker .. ':readiness')
    if word and cjson.decode(word)[model] == cjson.null then return true end
  end
  return false
end
"""

POSITION += """
local function position(id)
  local turn = turn_of(id)
  if not turn then return -1 end
  local key, member = ready_key(turn.priority, turn.model), turn.arrival .. ':' .. id
  local rank = redis.call('ZRANK', key, member)
  if not rank then return -1 end
  local offsets = redis.call('HGETALL', offsets_key(turn.priority))
  local start = redis.call('ZSCORE', key, member) + redis.call('HGET', offsets_key(turn.priority), turn.model)
  for i = 1, #offsets, 2 do
    if offsets[i] ~= turn.model then
      local earlier = '(' .. exact(start - offsets[i + 1])
      rank = rank + redis.call('ZCOUNT', ready_key(turn.priority, offsets[i]), '-inf', earlier)
    end
  end
  if turn.priority == 'batch' then
    for _, model in ipairs(redis.call('HKEYS', offsets_key('interactive'))) do
      rank = rank + redis.call('ZCARD', ready_key('interactive', model))
    end
  end
  return rank
end

-- Seconds until the end of one that has so many before it, by the latest runs; nil where there were none.
local function expected_s(ahead, model, cost)
  local ran_s, each_s = unpack(redis.call('HMGET', PACE, 'ran_s', 'model:' .. model))
  if not (ran_s and each_s) then return nil end
  local slots = redis.call('SCARD', SLOTS)
  local free = slots - redis.call('SCARD', RUNNING) - redis.call('LLEN', POPPED)
  local ends = math.max(0, ahead + 1 - math.max(0, free))
  return ends * ran_s / math.max(1, slots) + cost * each_s
end

local function standing(id)
  local fields = redis.call('HGETALL', own_key(id))
  local state, model, cost = unpack(redis.call('HMGET', own_key(id), 'state', 'model', 'cost'))
  if state ~= 'queued' then return fields end
  local place = {ahead = math.max(0, position(id)), taken = model and is_served(model) or false}
  if place.taken and cost then place.eta_s = expected_s(place.ahead, model, tonumber(cost)) end
  fields[#fields + 1] = 'place'
  fields[#fields + 1] = cjson.encode(place)
  return fields
end
"""

_POSITION = """
return position(ARGV[3])
"""


class FairQueue:
    """The jobs that wait, in their order. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._pop = Script(redis, _POP, "allow-oom")
        self._put_back = Script(redis, _PUT_BACK, "allow-oom")
        self._position = Script(redis, POSITION + _POSITION, "no-writes")

    def pop(self, models: Sequence[str] | None, count: int) -> list[str]:
        """The next jobs, at most ``count``, of ``models`` (None: of any), in the order they should start.

        They stand in RQ's intermediate list then, until `Leases.take`, `put_back` or a janitor. A job whose
        deadline has passed fails, and one whose entry in RQ is gone is dropped, instead of being returned.
        """
        popped: list[str] = []
        while models is None or models:
            done, ids = cast(tuple[int, list[bytes]], self._pop(count - len(popped), *(models or ())))
            popped += [job_id.decode() for job_id in ids]
            if done:
                break
        return popped

    def put_back(self, job_ids: Sequence[str]) -> int:
        """Let jobs that were popped, and not taken, wait again in their old turn; how many there were."""
        return int(self._put_back(*job_ids)) if job_ids else 0

    def position(self, job_id: str) -> int | None:
        """How many jobs are before this one, 0 for the next; None when it does not wait."""
        rank = int(self._position(job_id))
        return None if rank < 0 else rank
