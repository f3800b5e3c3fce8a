"""The steps of putting a batch into the queue that nothing may come between; see
`workers.batches.expander`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import redis

from workers.batches.batching import WANTED_ELSEWHERE
from workers.broker.scripts import Script
from workers.jobs.cancellation import WITHDRAWING

#: The jobs of a batch are compared with what it counts this often, in case one ended unheard: a worker of an
#: earlier version, or other hands at Redis.
COMPARE_S = 30.0
#: Batches that one look compares, those first that were not for longest: up to 256 jobs each.
MOST_COMPARED = 10
#: Answers of a batch that still runs are promised anew this often: the promise is for an hour.
PIN_EVERY_S = 1200.0

# One worker a second does it for all. Says which batches a cancellation was begun of and not ended.
_LOOK = """
local every_s, compare_s, most_compared, pin_s = unpack(ARGV, 3, 6)
compare_s, most_compared, pin_s = tonumber(compare_s), tonumber(most_compared), tonumber(pin_s)
if not redis.call('SET', RUNNING_BATCHES .. ':looked', 1, 'NX', 'PX', math.floor(every_s * 900)) then
  return {}
end

-- A job that is gone is asked for again, or counts as canceled where nobody wants it any more; one that
-- stands otherwise than is counted is counted anew.
local function compare(batch, key)
  redis.call('HSET', key, 'compared_at', NOW_TEXT)
  local flat = redis.call('HGETALL', batch_key(batch, 'open'))
  for i = 1, #flat, 2 do
    local id, unit = flat[i], flat[i + 1]
    local state = redis.call('HGET', own_key(id), 'state')
    local mark = redis.call('HGET', batch_key(batch, 'units'), unit)
    if not state and redis.call('HEXISTS', key, 'cancel_requested') == 1 then
      mark_unit(batch, unit, id, 'canceled')
    elseif not state then
      redis.call('RPUSH', batch_key(batch, 'now'), unit)
    elseif UNIT_STATES[string.sub(mark, 1, 1)] ~= state then
      mark_unit(batch, unit, id, state, unit_detail(id, state))
    end
  end
end

local canceled, stale = {}, {}
for _, batch in ipairs(redis.call('SMEMBERS', RUNNING_BATCHES)) do
  local key = batch_key(batch)
  local state, model, pending, deadline, compared, pinned, created = unpack(redis.call('HMGET', key, 'state',
    'model', 'cancel_pending', 'deadline_at', 'compared_at', 'pinned_at', 'created_at'))
  if state ~= 'running' then
    redis.call('SREM', RUNNING_BATCHES, batch)
  else
    if pending then canceled[#canceled + 1] = batch end
    if deadline and tonumber(deadline) <= NOW then
      drop_rest(batch, 'failed', {'deadline_exceeded', 'the deadline passed before these units were queued'})
    end
    if redis.call('EXISTS', batch_key(batch, 'claim')) == 0 then
      if redis.call('LLEN', batch_key(batch, 'now')) > 0 then
        make_due(batch, model)
      elseif NOW - (compared or 0) >= compare_s then
        stale[#stale + 1] = {tonumber(compared or 0), batch, model}
      end
    end
    follow_batch(batch)
    if NOW - (pinned or created) >= pin_s then make_due(batch, model) end
  end
end

table.sort(stale, function(one, other) return one[1] < other[1] end)
for i = 1, math.min(#stale, most_compared) do
  local batch, model = stale[i][2], stale[i][3]
  compare(batch, batch_key(batch))
  if redis.call('LLEN', batch_key(batch, 'now')) > 0 then make_due(batch, model) end
  follow_batch(batch)
end
return canceled
"""

_CLAIM = """
local batch, token, claim_s = unpack(ARGV, 3, 5)
if redis.call('HGET', batch_key(batch), 'state') ~= 'running' then return 0 end
return redis.call('SET', batch_key(batch, 'claim'), token, 'NX', 'EX', claim_s) and 1 or 0
"""

_RELEASE = """
local batch, token, rest_s = unpack(ARGV, 3, 5)
if redis.call('GET', batch_key(batch, 'claim')) ~= token then return end
redis.call('DEL', batch_key(batch, 'claim'))
if redis.call('HGET', batch_key(batch), 'state') ~= 'running' then return end
if tonumber(rest_s) > 0 then redis.call('HSET', batch_key(batch), 'held_until', exact(NOW + rest_s)) end
follow_batch(batch)
"""

# What is in hand already comes first: its worker died over it, or the store did not answer.
_NEXT = """
local batch, token, claim_s, most = unpack(ARGV, 3, 6)
local key, now, again = batch_key(batch), batch_key(batch, 'now'), batch_key(batch, 'again')
if redis.call('GET', batch_key(batch, 'claim')) ~= token then return {} end
redis.call('EXPIRE', batch_key(batch, 'claim'), claim_s)
local state, cancel, total, cursor, window, queued, units =
  unpack(redis.call('HMGET', key, 'state', 'cancel_requested', 'total', 'cursor', 'window', 'queued',
    'units'))
if state ~= 'running' or cancel then return {} end
local hand = {}
for _, unit in ipairs(redis.call('LRANGE', now, 0, -1)) do
  local mark = redis.call('HGET', batch_key(batch, 'units'), unit)
  if mark and not OPEN_LETTERS[string.sub(mark, 1, 1)] then
    redis.call('LREM', now, 0, unit)
  elseif #hand < tonumber(most) then
    hand[#hand + 1] = unit
  end
end
if #hand > 0 then return hand end
local room = math.min(tonumber(most), window - queued)
while #hand < room do
  local unit = redis.call('LPOP', again)
  if not unit then break end
  hand[#hand + 1] = unit
end
if #hand < room and tonumber(cursor) < tonumber(total) then
  local chosen = cjson.decode(units)
  while #hand < room and tonumber(cursor) < tonumber(total) do
    local unit = chosen.stop and chosen.start + cursor * chosen.step or chosen[cursor + 1]
    hand[#hand + 1] = string.format('%d', unit)
    cursor = cursor + 1
  end
  redis.call('HSET', key, 'cursor', cursor)
end
if #hand > 0 then redis.call('RPUSH', now, unpack(hand)) end
return hand
"""

_LINK = """
local batch, token = unpack(ARGV, 3, 4)
if redis.call('GET', batch_key(batch, 'claim')) ~= token then return 0 end
if redis.call('HEXISTS', batch_key(batch), 'cancel_requested') == 1 then return 0 end
for i = 5, #ARGV, 2 do -- its deadline may have let go of them since
  local marked = redis.call('HEXISTS', batch_key(batch, 'units'), ARGV[i]) == 1
  if not (marked or redis.call('LPOS', batch_key(batch, 'now'), ARGV[i])) then return 0 end
end
for i = 5, #ARGV, 2 do
  local unit, id = ARGV[i], ARGV[i + 1]
  local mark = redis.call('HGET', batch_key(batch, 'units'), unit)
  if not mark then mark_unit(batch, unit, id, 'queued') end
end
return 1
"""

# How the units stand that were asked: by their jobs' records, or, where there is none, as the store has
# them. What was canceled or forgotten since it was taken in hand is let go. What the queue refused waits.
_ALIGN = """
local batch, token, caller, count = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local key, now = batch_key(batch), batch_key(batch, 'now')
local state, cancel = unpack(redis.call('HMGET', key, 'state', 'cancel_requested'))
local mine = redis.call('GET', batch_key(batch, 'claim')) == token

local function stands(unit, id, said, detail)
  local job = redis.call('HGET', own_key(id), 'state')
  if job and said ~= 'failed' then said, detail = job, unit_detail(id, job) end
  local mark = redis.call('HGET', batch_key(batch, 'units'), unit)
  if UNIT_STATES[string.sub(mark, 1, 1)] ~= said then mark_unit(batch, unit, id, said, detail) end
end

local function refused(unit)
  local mark = redis.call('HGET', batch_key(batch, 'units'), unit)
  redis.call('LREM', now, 0, unit)
  if not mark or string.sub(mark, 1, 1) ~= 'q' then return end
  local id = string.match(mark, '^%a (%S+)')
  redis.call('HINCRBY', key, 'queued', -1)
  redis.call('HDEL', batch_key(batch, 'units'), unit)
  redis.call('HDEL', batch_key(batch, 'open'), id)
  redis.call('SREM', batches_of(id), batch)
  redis.call('LPUSH', batch_key(batch, 'again'), unit)
end

local at = 7
for _ = 1, count do
  local unit, id, said, detail = unpack(ARGV, at, at + 3)
  at = at + 4
  if redis.call('HEXISTS', batch_key(batch, 'open'), id) == 1 then
    stands(unit, id, said, detail)
  elseif not state or cancel then
    if not wanted_elsewhere(batch, id, caller) then withdraw(id, caller == ANONYMOUS and '' or caller) end
  end
  redis.call('LREM', now, 0, unit)
end
if not mine or state ~= 'running' or cancel then return end
for i = #ARGV, at, -1 do refused(ARGV[i]) end
"""

# Of what is in hand, that has no job yet ends with the rest.
_DROP = """
local batch, code, detail = unpack(ARGV, 3, 5)
if redis.call('HGET', batch_key(batch), 'state') ~= 'running' then return end
local problem = {code = code, detail = detail}
for _, unit in ipairs(redis.call('LRANGE', batch_key(batch, 'now'), 0, -1)) do
  local mark = redis.call('HGET', batch_key(batch, 'units'), unit)
  local id = mark and string.match(mark, '^q (%S+)')
  if id and redis.call('EXISTS', own_key(id)) == 0 then
    mark_unit(batch, unit, id, 'failed', cjson.encode(problem))
  end
end
drop_rest(batch, 'failed', {code, detail})
follow_batch(batch)
"""

_PINS_DUE = """
local key, every_s = batch_key(ARGV[3]), tonumber(ARGV[4])
local pinned, created = unpack(redis.call('HMGET', key, 'pinned_at', 'created_at'))
if not created or NOW - (pinned or created) < every_s then return 0 end
redis.call('HSET', key, 'pinned_at', NOW_TEXT)
return 1
"""


class ExpansionCommands:
    """The steps. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._look = Script(redis, _LOOK, "allow-oom")
        self._claim = Script(redis, _CLAIM)
        self._release = Script(redis, _RELEASE, "allow-oom")
        self._next = Script(redis, _NEXT)
        self._link = Script(redis, _LINK)
        self._align = Script(redis, WITHDRAWING + WANTED_ELSEWHERE + _ALIGN, "allow-oom")
        self._drop = Script(redis, _DROP, "allow-oom")
        self._pins_due = Script(redis, _PINS_DUE, "allow-oom")

    def look(self, every_s: float) -> list[str]:
        """Find what may go on, and end what is overdue, unless another worker has within ``every_s``.

        Batches whose cancellation was begun and not ended.
        """
        found = self._look(every_s, COMPARE_S, MOST_COMPARED, PIN_EVERY_S)
        return [each.decode() for each in cast(list[bytes], found)]

    def claim(self, batch_id: str, token: str, claim_s: int) -> bool:
        """Whether the batch is this worker's for so long; no other one's, and running."""
        return bool(self._claim(batch_id, token, claim_s))

    def release(self, batch_id: str, token: str, rest_s: float) -> None:
        """Let go of the claim, and let the batch rest for so long unless a unit of it ends."""
        self._release(batch_id, token, rest_s)

    def next(self, batch_id: str, token: str, claim_s: int, most: int) -> list[int]:
        """Take units in hand, and hold the claim anew; none where there is no room, or the claim is lost."""
        return [int(each) for each in cast(list[bytes], self._next(batch_id, token, claim_s, most))]

    def link(self, batch_id: str, token: str, jobs: Sequence[tuple[int, str]]) -> bool:
        """Count units as queued, and follow their jobs from now on; False where nobody wants that."""
        return bool(self._link(batch_id, token, *(word for pair in jobs for word in pair)))

    def align(
        self,
        batch_id: str,
        token: str,
        caller: str,
        asked: Sequence[tuple[str | int, ...]],
        refused: Sequence[int],
    ) -> None:
        """Count units as they stand: number, job, state, and what goes with that, of each that was asked."""
        words = [word for each in asked for word in each]
        self._align(batch_id, token, caller, len(asked), *words, *refused)

    def drop(self, batch_id: str, code: str, detail: str) -> None:
        """Let all units fail that were not queued."""
        self._drop(batch_id, code, detail)

    def pins_due(self, batch_id: str, every_s: float) -> bool:
        """Whether answers are to be promised anew; says so once in that time."""
        return bool(self._pins_due(batch_id, every_s))
