#!lua flags=allow-oom
-- Updates RQ's record of a worker.
-- ARGV: 1 key of the worker, 2 seconds until it expires or '', 3… fields and values
-- Returns: nothing.

local worker, ttl_s = unpack(ARGV)
if #ARGV > 2 then redis.call('HSET', worker, unpack(ARGV, 3)) end
if ttl_s ~= '' then redis.call('EXPIRE', worker, ttl_s) end
