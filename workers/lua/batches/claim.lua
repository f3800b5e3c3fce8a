#!lua
-- Claims a running batch for a worker.
-- ARGV: 1 batch id, 2 token, 3 seconds of the claim
-- Returns: 1, or 0 where another worker has it or it does not run.
-- @include lib/keys
-- @include lib/locks

local batch, token, claim_s = unpack(ARGV)
if redis.call('HGET', batch_key(batch), 'state') ~= 'running' then return 0 end
if is_held(batch_key(batch, 'claim'), LIMIT.CLAIM_S) then return 0 end
redis.call('SET', batch_key(batch, 'claim'), token, 'EX', claim_s)
return 1
