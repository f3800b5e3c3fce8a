-- Shared loops: one entry that cannot be handled, because it is damaged, of another program, or a key of
-- another type, must not stop the others. It is set aside, and a janitor logs it.

-- Entries that were set aside and not logged yet.
local MAX_SET_ASIDE = 100

local function set_aside(place, entry, reason)
  if type(reason) == 'table' then reason = reason.err end
  redis.call('LPUSH', KEY.SET_ASIDE, place .. ' ' .. entry .. ': ' .. tostring(reason))
  redis.call('LTRIM', KEY.SET_ASIDE, 0, MAX_SET_ASIDE - 1)
  redis.call('EXPIRE', KEY.SET_ASIDE, LIMIT.FINISHED_TTL_S)
end

-- What `act` returns for an entry. Where it raises, the entry is set aside: `drop` takes it out of `place`,
-- and nothing is returned.
local function guarded(place, entry, drop, act, ...)
  local results = {pcall(act, ...)}
  if results[1] then return unpack(results, 2) end
  set_aside(place, entry, results[2])
  if drop then drop() end
end
