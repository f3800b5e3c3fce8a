"""Which worker processes are there: the kernel closes the connections of one that dies, and Redis sees that.

Each process is subscribed to a channel of its own as long as its listener is. Once it is, it is on a list,
and whoever sweeps looks whether those on the list still have their subscriber. A process without one is not
dead yet: its connection may have been cut alone, or Redis started anew. It is *taken for dead* when

- it had no subscriber in any sweep for `ABSENT_S`, of which a time in which nobody swept counts as one sweep,
- none of its leases was taken or beaten for since that was first seen, and
- its last beat is `SILENT_S` ago, so that the next one is overdue.

Its leases end then, before their time. A process that is not on the list, that stands still, or whose machine
is gone without a word to Redis, is left to the leases (`workers.queue.leases`). One that was taken for dead
wrongly is refused like any other that lost its lease; when it is heard of again, the losses are not counted.
"""

from __future__ import annotations

import redis

from workers.broker.scripts import Script
from workers.queue.leases import BEAT_S

#: How long a process is seen without its connection before it is taken for dead: with sweeps a second apart
#: that is in three of them. A listener that lives connects again within some 0.2 s.
ABSENT_S = 1.4
#: And for how long it has not beaten: a beat is overdue by half a second.
SILENT_S = BEAT_S + 0.5
#: How long a process may take to be heard of again for its losses not to count.
REGRET_S = 600

_LIST = "proxygrad:attending"  # process -> "", or since when it was seen without a connection, and how often
_CHANNEL = "proxygrad:attending:"
_MISSED = "proxygrad:missed:"  # and the process: the jobs it was made to lose

_ENLIST = f"""
local worker = ARGV[3]
redis.call('HSET', '{_LIST}', worker, '')
for _, id in ipairs(redis.call('SMEMBERS', '{_MISSED}' .. worker)) do
  local state, losses = unpack(redis.call('HMGET', own_key(id), 'state', 'losses'))
  if (state == 'queued' or state == 'running') and tonumber(losses or 0) > 0 then
    redis.call('HINCRBY', own_key(id), 'losses', -1)
  end
end
redis.call('DEL', '{_MISSED}' .. worker)
"""

#: Functions for the sweep, in Lua (`workers.queue.recovery`).
VANISHING = f"""
local ATTENDING, ABSENT_S, SILENT_S = '{_LIST}', {ABSENT_S}, {SILENT_S}

-- After a time of which nothing is known, everybody is there until seen otherwise.
local function presume_all_there()
  for _, worker in ipairs(redis.call('HKEYS', ATTENDING)) do redis.call('HSET', ATTENDING, worker, '') end
end

-- Those seen without a connection for long enough, and since when. `passed_s` since the last sweep.
local function absent_for_long(passed_s)
  local known, channels, absent = redis.call('HGETALL', ATTENDING), {{}}, {{}}
  if #known == 0 then return absent end
  for i = 1, #known, 2 do channels[#channels + 1] = '{_CHANNEL}' .. known[i] end
  local subscribers = redis.call('PUBSUB', 'NUMSUB', unpack(channels))
  for i = 1, #known, 2 do
    local worker, since, seen_s = known[i], string.match(known[i + 1], '^(%S+) (%S+)$')
    if subscribers[i + 1] > 0 then
      if since then redis.call('HSET', ATTENDING, worker, '') end
    else
      seen_s = since and seen_s + passed_s or 0
      redis.call('HSET', ATTENDING, worker, (since or NOW_TEXT) .. ' ' .. exact(seen_s))
      if seen_s >= ABSENT_S then absent[worker] = tonumber(since) end
    end
  end
  return absent
end

-- Their leases, and when each of them last beat.
local function held_by(absent)
  local held, beaten = {{}}, {{}}
  for _, member in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    local id, execution = string.match(member, '^(.*):([^:]+)$')
    local worker, holder = unpack(redis.call('HMGET', own_key(id), 'worker', 'execution'))
    if worker and absent[worker] and holder == execution then
      local at = redis.call('HGET', 'rq:execution:' .. member, 'last_heartbeat') or NOW
      held[worker] = held[worker] or {{}}
      table.insert(held[worker], member)
      beaten[worker] = math.max(beaten[worker] or 0, tonumber(at))
    end
  end
  return held, beaten
end

-- Ends leases, at most so many, of processes that are taken for dead; each, and what became of its job.
local function end_vanished(passed_s, most)
  local absent, found = absent_for_long(passed_s), {{}}
  if not next(absent) then return found end
  local held, beaten = held_by(absent)
  for worker, since in pairs(absent) do
    local runs, last = held[worker] or {{}}, beaten[worker] or 0
    if #runs == 0 or last > since then
      redis.call('HDEL', ATTENDING, worker) -- nothing to lose, or alive
    elseif NOW - last >= SILENT_S then
      for i = 1, math.min(#runs, most - #found / 2) do
        local outcome, missed = release(runs[i], true), '{_MISSED}' .. worker
        if outcome == 'queued' then
          redis.call('SADD', missed, string.match(runs[i], '^(.*):[^:]+$'))
          redis.call('EXPIRE', missed, {REGRET_S})
        end
        found[#found + 1] = runs[i]
        found[#found + 1] = outcome
        runs[i] = nil
      end
      if not next(runs) then redis.call('HDEL', ATTENDING, worker) end
    end
  end
  return found
end
"""


def channel_of(worker: str) -> str:
    """What the process of that name subscribes to as long as it lives; nothing is ever said there."""
    return f"{_CHANNEL}{worker}"


class Presence:
    """The list. Works in a full Redis too. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._enlist = Script(redis, _ENLIST, "allow-oom")

    def enlist(self, worker: str) -> None:
        """To be called whenever the process has subscribed to `channel_of` itself."""
        self._enlist(worker)
