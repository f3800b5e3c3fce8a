#!lua flags=allow-oom
-- Takes jobs from runs whose lease has expired or whose process is presumed dead.
-- After a gap without any sweep nobody could send a heartbeat either: Redis was away, or stood still. Its
-- clock went on, so that every lease looks expired; workers get the time for two heartbeats before one counts
-- as such.
-- ARGV: 1 most jobs, 2 seconds that count as a gap, 3 seconds of patience after it, 4 seconds between
--   sweeps, 5 seconds of a lease, 6 seconds without a subscription and 7 without a heartbeat after which a
--   process is presumed dead, 8 seconds in which its losses can be taken back
-- Returns: leases, each followed by what became of its job (`release_lease`).
-- @include lib/clock
-- @include lib/guard
-- @include lib/leases
-- @include lib/presence

local most, gap_s, patience_s, sweep_s, lease_s, absent_s, silent_s, regret_s = unpack(ARGV)
local swept, patient_until = unpack(redis.call('HMGET', KEY.SWEEPS, 'swept', 'patient_until'))
local passed_s = swept and math.max(0, NOW - swept) or 0
redis.call('HSET', KEY.SWEEPS, 'swept', NOW_TEXT)
if passed_s > tonumber(gap_s) then
  patient_until = NOW + patience_s
  redis.call('HSET', KEY.SWEEPS, 'patient_until', exact(patient_until))
end
if is_ahead(patient_until, patience_s) then
  presume_all_present()
  return {}
end
local absent = long_absent(math.min(passed_s, sweep_s), tonumber(absent_s))
local found = reclaim_from(absent, most, tonumber(silent_s), regret_s)
-- A lease that lasts longer than one can was taken before the clock was set back.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', RQ.LEASES, '(' .. exact(NOW + lease_s), '+inf')) do
  redis.call('ZADD', RQ.LEASES, 'XX', exact(NOW + lease_s), member)
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', RQ.LEASES, '-inf', NOW_TEXT, 'LIMIT', 0, most)) do
  local outcome = guarded('leases', member, function() redis.call('ZREM', RQ.LEASES, member) end,
    release_lease, member, true)
  if outcome then
    found[#found + 1] = member
    found[#found + 1] = outcome
  end
end
return found
