#!lua flags=allow-oom
-- Says, once in an interval, that the results of a batch are to be pinned anew.
-- ARGV: 1 batch id, 2 seconds of the interval
-- Returns: 1 or 0.
-- @include lib/clock
-- @include lib/keys

local batch, every_s = unpack(ARGV)
local key = batch_key(batch)
local pinned, created = unpack(redis.call('HMGET', key, 'pinned_at', 'created_at'))
if not created or elapsed_s(pinned or created) < tonumber(every_s) then return 0 end
redis.call('HSET', key, 'pinned_at', NOW_TEXT)
return 1
