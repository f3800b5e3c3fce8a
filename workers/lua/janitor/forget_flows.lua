#!lua flags=allow-oom
-- Forgets flows that owe nothing any more: the clock is past their last finish.
-- ARGV: none
-- Returns: nothing.
-- @include lib/fair_queue
-- @include lib/keys

for _, priority in ipairs(PRIORITIES) do
  local key, clock = flows_key(priority), clock_of(priority)
  local idle = redis.call('EXISTS', offsets_key(priority)) == 0
  local fields, waits = redis.call('HGETALL', key), {}
  for i = 1, #fields, 2 do
    local kind, flow = string.sub(fields[i], 1, 2), string.sub(fields[i], 3)
    if kind == 'n:' then
      waits[flow] = not idle
      if idle then redis.call('HDEL', key, fields[i]) end
    end
  end
  for i = 1, #fields, 2 do
    local kind, flow = string.sub(fields[i], 1, 2), string.sub(fields[i], 3)
    if kind ~= 'n:' and not waits[flow] and (tonumber(fields[i + 1]) or clock) <= clock then
      redis.call('HDEL', key, fields[i])
    end
  end
end
