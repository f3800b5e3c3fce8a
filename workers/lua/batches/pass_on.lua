#!lua flags=allow-oom
-- Leaves a batch to workers that serve its model with the weights that it was requested of.
-- ARGV: 1 batch id, 2 capability that only those offer
-- Returns: 1, or 0 where no live worker does.
-- @include lib/keys
-- @include lib/offers

local batch, capability = unpack(ARGV)
if is_settled() and not is_offered(capability) then return 0 end
redis.call('HSET', batch_key(batch), 'model', capability)
return 1
