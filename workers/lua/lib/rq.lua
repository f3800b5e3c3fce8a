-- RQ's side: how RQ writes a time, and the end of a job in RQ's entry and registries.
-- @include lib/clock
-- @include lib/keys

-- The time as RQ writes it. The date is from H. Hinnant, "chrono-Compatible Low-Level Date Algorithms",
-- `civil_from_days`: days are counted from 0000-03-01, so that a leap day is the last of its year.
local function format_rq_time(seconds, micros)
  local day_second = seconds % 86400
  local days = (seconds - day_second) / 86400 + 719468
  local era = math.floor(days / 146097)
  local day_of_era = days - era * 146097
  local year_of_era = math.floor((day_of_era - math.floor(day_of_era / 1460) + math.floor(day_of_era / 36524)
    - math.floor(day_of_era / 146096)) / 365)
  local leap_days = math.floor(year_of_era / 4) - math.floor(year_of_era / 100)
  local day_of_year = day_of_era - (365 * year_of_era + leap_days)
  local shifted_month = math.floor((5 * day_of_year + 2) / 153)
  local day = day_of_year - math.floor((153 * shifted_month + 2) / 5) + 1
  local month = shifted_month < 10 and shifted_month + 3 or shifted_month - 9
  local year = year_of_era + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month, day, math.floor(day_second / 3600),
    math.floor(day_second / 60) % 60, day_second % 60, micros)
end

local function rq_time() return format_rq_time(tonumber(time[1]), tonumber(time[2])) end

-- Ends RQ's entry of a job; one that was deleted is not brought back.
local function end_entry(id, status)
  if redis.call('EXISTS', entry_key(id)) == 0 then return end
  redis.call('HSET', entry_key(id), 'status', status, 'ended_at', rq_time())
  redis.call('EXPIRE', entry_key(id), LIMIT.FINISHED_TTL_S)
  local registry = ({finished = RQ.FINISHED, failed = RQ.FAILED, canceled = RQ.CANCELED})[status]
  for _, each in ipairs({RQ.FINISHED, RQ.FAILED, RQ.CANCELED}) do
    if each ~= registry then redis.call('ZREM', each, id) end
  end
  redis.call('ZADD', registry, NOW + LIMIT.FINISHED_TTL_S, id)
end
