#!lua flags=allow-oom
-- Publishes what a live worker serves.
-- Runs in a full Redis too: a worker that could not renew it would look dead while it finishes its jobs. The
-- index of workers only says whose keys to read; a day is far beyond any difference between clocks.
-- ARGV: 1 worker, 2 models as JSON, 3 readiness as JSON, 4 milliseconds until both expire
-- Returns: nothing.

local worker, models, readiness, ttl_ms = unpack(ARGV)
local prefix, now = KEY.WORKER_PREFIX .. worker, redis.call('TIME')[1]
redis.call('SET', prefix .. ':models', models, 'PX', ttl_ms)
redis.call('SET', prefix .. ':readiness', readiness, 'PX', ttl_ms)
redis.call('ZREMRANGEBYSCORE', KEY.WORKERS, '-inf', now - 24 * 3600)
redis.call('ZADD', KEY.WORKERS, now, worker)
