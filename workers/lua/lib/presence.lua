-- Presence of worker processes: which of them died, by the subscription that each holds.
--
-- The rules by which a process is presumed dead: `workers.queue.janitor`.
-- @include lib/clock
-- @include lib/guard
-- @include lib/keys
-- @include lib/leases

-- After a time without sweeps, every process is present until seen otherwise.
local function presume_all_present()
  for _, worker in ipairs(redis.call('HKEYS', KEY.PRESENCE)) do
    redis.call('HSET', KEY.PRESENCE, worker, '')
  end
end

-- Processes without a subscription for `absent_s` seconds, and since when. `passed_s` since the last sweep.
local function long_absent(passed_s, absent_s)
  local known, channels, absent = redis.call('HGETALL', KEY.PRESENCE), {}, {}
  if #known == 0 then return absent end
  for i = 1, #known, 2 do channels[#channels + 1] = KEY.PRESENCE_CHANNEL_PREFIX .. known[i] end
  local subscribers = redis.call('PUBSUB', 'NUMSUB', unpack(channels))
  for i = 1, #known, 2 do
    local worker, since, seen_s = known[i], string.match(known[i + 1], '^(%S+) (%S+)$')
    if subscribers[i + 1] > 0 then
      if since then redis.call('HSET', KEY.PRESENCE, worker, '') end
    else
      seen_s = since and seen_s + passed_s or 0
      since = since and tonumber(since) <= NOW and since or NOW_TEXT
      redis.call('HSET', KEY.PRESENCE, worker, since .. ' ' .. exact(seen_s))
      if seen_s >= absent_s then absent[worker] = tonumber(since) end
    end
  end
  return absent
end

-- The leases of those processes, and the last heartbeat of each process.
local function leases_of(absent)
  local held, heartbeats = {}, {}
  local function look(member)
    local id, execution = string.match(member, '^(.*):([^:]+)$')
    if not id then return end -- `release_lease` sets it aside
    local worker, holder = unpack(redis.call('HMGET', job_key(id), 'worker', 'execution'))
    if worker and absent[worker] and holder == execution then
      local at = tonumber(redis.call('HGET', RQ.EXECUTION_PREFIX .. member, 'last_heartbeat') or NOW)
      if at > NOW then at = absent[worker] end -- the clock was set back: it came before that, at the latest
      held[worker] = held[worker] or {}
      table.insert(held[worker], member)
      heartbeats[worker] = math.max(heartbeats[worker] or 0, at)
    end
  end
  for _, member in ipairs(redis.call('ZRANGE', RQ.LEASES, 0, -1)) do
    guarded('leases', member, function() redis.call('ZREM', RQ.LEASES, member) end, look, member)
  end
  return held, heartbeats
end

-- Ends leases, at most `most`, of those that had no heartbeat for `silent_s` seconds either: they are
-- presumed dead. Each lease, followed by what became of its job.
local function reclaim_from(absent, most, silent_s, regret_s)
  local found = {}
  if not next(absent) then return found end
  local held, heartbeats = leases_of(absent)
  for worker, since in pairs(absent) do
    local runs, last = held[worker] or {}, heartbeats[worker] or 0
    if #runs == 0 or last > since then
      redis.call('HDEL', KEY.PRESENCE, worker) -- nothing to lose, or alive
    elseif NOW - last >= silent_s then
      for i = 1, math.min(#runs, most - #found / 2) do
        local missed, member = KEY.MISSED_PREFIX .. worker, runs[i]
        local outcome = guarded('leases', member, function() redis.call('ZREM', RQ.LEASES, member) end,
          release_lease, member, true) or 'stale'
        if outcome == 'queued' then
          redis.call('SADD', missed, string.match(runs[i], '^(.*):[^:]+$'))
          redis.call('EXPIRE', missed, regret_s)
        end
        found[#found + 1] = runs[i]
        found[#found + 1] = outcome
        runs[i] = nil
      end
      if not next(runs) then redis.call('HDEL', KEY.PRESENCE, worker) end
    end
  end
  return found
end
