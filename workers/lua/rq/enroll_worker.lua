#!lua flags=allow-oom
-- Registers a worker in RQ, as RQ does at its start.
-- ARGV: 1 key of the worker, 2 seconds until it expires, 3… fields and values
-- Returns: nothing.

local worker, ttl_s = unpack(ARGV)
redis.call('DEL', worker)
redis.call('HSET', worker, unpack(ARGV, 3))
redis.call('EXPIRE', worker, ttl_s)
redis.call('SADD', RQ.ALL_WORKERS, worker)
redis.call('SADD', RQ.WORKERS, worker)
