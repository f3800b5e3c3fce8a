-- Keys that exist for some seconds: locks, claims, pins.
--
-- Redis keeps the moment at which a key expires. Where its clock was set back since, the key would outlast
-- what it is for, and whoever died with it could not be told from one at work.

-- Whether the key is there. One that is to stay for longer than `most_s` seconds ends after those.
local function is_held(key, most_s)
  local left_ms = redis.call('PTTL', key)
  if left_ms == -2 then return false end
  local most_ms = math.ceil(most_s * 1000)
  if left_ms < 0 or left_ms > most_ms then redis.call('PEXPIRE', key, most_ms) end
  return true
end
