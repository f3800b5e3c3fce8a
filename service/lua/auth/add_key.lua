#!lua flags=allow-oom
-- Stores a new API key.
-- ARGV: 1 key id, 2 record as JSON
-- Returns: 1, or 0 where the id is there already.

local id, record = unpack(ARGV)
return redis.call('HSETNX', KEY.API_KEYS, id, record)
