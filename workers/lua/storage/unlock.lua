#!lua flags=allow-oom
-- Releases a deletion lock.
-- ARGV: 1 job id, 2 token
-- Returns: nothing.

local id, token = unpack(ARGV)
local lock = KEY.DELETION_LOCK_PREFIX .. id
if redis.call('GET', lock) == token then redis.call('DEL', lock) end
