#!lua flags=allow-oom
-- Reads what live workers publish.
-- ARGV: 1 `models` or `readiness`
-- Returns: workers, each followed by its words.
-- @include lib/locks

local part = unpack(ARGV)
local found = {}
for _, worker in ipairs(redis.call('ZRANGE', KEY.WORKERS, 0, -1)) do
  local key = KEY.WORKER_PREFIX .. worker .. ':' .. part
  local word = is_held(key, LIMIT.MAX_LIVE_S) and redis.pcall('GET', key)
  if word then
    found[#found + 1] = worker
    found[#found + 1] = type(word) == 'string' and word or ''
  end
end
return found
