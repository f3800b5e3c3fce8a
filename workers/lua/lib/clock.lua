-- The time on Redis' clock, in seconds since 1970: one moment for the whole script.

local time = redis.call('TIME')
local NOW_TEXT = string.format('%d.%06d', time[1], time[2])
local NOW = tonumber(NOW_TEXT)

-- A number as text from which the same number is read.
local function exact(number) return string.format('%.17g', number) end
