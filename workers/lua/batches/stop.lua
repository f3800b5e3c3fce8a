#!lua flags=allow-oom
-- Requests the cancellation of a batch: nothing more of it is queued. `batches/withdraw` does the rest.
-- ARGV: 1 batch id
-- Returns: 1, or 0 where it does not run.
-- @include lib/batches
-- @include lib/clock
-- @include lib/keys

local batch = unpack(ARGV)
local key = batch_key(batch)
if redis.call('HGET', key, 'state') ~= 'running' then return 0 end
redis.call('HSETNX', key, 'cancel_requested', NOW_TEXT)
redis.call('HSET', key, 'cancel_pending', 1)
drop_rest(batch, 'canceled')
update_batch(batch)
return 1
