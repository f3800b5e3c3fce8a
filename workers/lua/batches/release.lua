#!lua flags=allow-oom
-- Releases a claim; the batch rests unless a unit of it ends.
-- ARGV: 1 batch id, 2 token, 3 seconds to rest
-- Returns: nothing.
-- @include lib/batches
-- @include lib/clock
-- @include lib/keys

local batch, token, rest_s = unpack(ARGV)
if redis.call('GET', batch_key(batch, 'claim')) ~= token then return end
redis.call('DEL', batch_key(batch, 'claim'))
if redis.call('HGET', batch_key(batch), 'state') ~= 'running' then return end
if tonumber(rest_s) > 0 then redis.call('HSET', batch_key(batch), 'held_until', exact(NOW + rest_s)) end
update_batch(batch)
