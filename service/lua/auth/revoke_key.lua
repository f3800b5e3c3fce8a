#!lua flags=allow-oom
-- Revokes an API key, unless it is revoked already.
-- ARGV: 1 key id
-- Returns: the record as JSON, or nil where there is none.
-- @include lib/clock

local id = unpack(ARGV)
local text = redis.call('HGET', KEY.API_KEYS, id)
if not text then return nil end
local record = cjson.decode(text)
if record.revoked_at == nil or record.revoked_at == cjson.null then
  record.revoked_at = tonumber(time[1])
  text = cjson.encode(record)
  redis.call('HSET', KEY.API_KEYS, id, text)
end
return text
