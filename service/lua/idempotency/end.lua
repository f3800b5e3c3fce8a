#!lua flags=allow-oom
-- Stores what an idempotent request led to, or frees its key.
-- ARGV: 1 key in Redis, 2 fingerprint of the request, 3 what to store or '', 4 seconds until it expires
-- Returns: nothing.

local key, fingerprint, value, ttl_s = unpack(ARGV)
local known = redis.call('GET', key)
if known and known ~= fingerprint then return end
if value == '' then redis.call('DEL', key) else redis.call('SET', key, value, 'EX', ttl_s) end
