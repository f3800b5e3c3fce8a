#!lua flags=allow-oom
-- Renews RQ's records of workers.
-- ARGV: 1 seconds until they expire, 2… keys of workers
-- Returns: keys of the workers that RQ has forgotten.
-- @include lib/rq

local ttl_s = unpack(ARGV)
local forgotten, rq_now = {}, rq_time()
for _, worker in ipairs({unpack(ARGV, 2)}) do
  if redis.call('HEXISTS', worker, 'birth') == 1 then
    redis.call('HSET', worker, 'last_heartbeat', rq_now)
    redis.call('EXPIRE', worker, ttl_s)
  else
    forgotten[#forgotten + 1] = worker
  end
end
return forgotten
