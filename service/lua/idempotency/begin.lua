#!lua flags=allow-oom
-- Reserves an idempotency key. Runs in a full Redis too: what is joined or stored is answered there.
-- ARGV: 1 key in Redis, 2 fingerprint of the request, 3 seconds until it expires
-- Returns: what the key was used for before, or nil.

local key, fingerprint, ttl_s = unpack(ARGV)
local known = redis.call('GET', key)
if not known then redis.call('SET', key, fingerprint, 'EX', ttl_s) end
return known
