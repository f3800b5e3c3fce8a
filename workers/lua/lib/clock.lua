-- The time on Redis' clock, in seconds since 1970: one moment for the whole script.
--
-- The clock may be set. A stored moment is believed only within what it can be ahead, or it would hold up
-- what waits for it as long as the clock was wrong.

local time = redis.call('TIME')
local NOW_TEXT = string.format('%d.%06d', time[1], time[2])
local NOW = tonumber(NOW_TEXT)

-- A number as text from which the same number is read.
local function exact(number) return string.format('%.17g', number) end

-- Seconds since a stored moment of the past. One that lies ahead was written by another clock: for ever.
local function elapsed_s(moment)
  moment = tonumber(moment) or -math.huge
  return moment <= NOW and NOW - moment or math.huge
end

-- Whether a stored moment is still to come. It lies at most `most_s` ahead: one further on is not believed.
local function is_ahead(moment, most_s)
  moment = tonumber(moment) or -math.huge
  return NOW < moment and moment <= NOW + tonumber(most_s)
end
