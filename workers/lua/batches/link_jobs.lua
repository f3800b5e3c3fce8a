#!lua
-- Counts units as queued, and follows their jobs from now on.
-- ARGV: 1 batch id, 2 token, 3… units, each followed by its job id
-- Returns: 1, or 0 where the claim is lost or the batch wants them no more.
-- @include lib/batches
-- @include lib/keys

local batch, token = unpack(ARGV)
if redis.call('GET', batch_key(batch, 'claim')) ~= token then return 0 end
if redis.call('HEXISTS', batch_key(batch), 'cancel_requested') == 1 then return 0 end
for i = 3, #ARGV, 2 do -- its deadline may have let go of them since
  local marked = redis.call('HEXISTS', batch_key(batch, 'units'), ARGV[i]) == 1
  if not (marked or redis.call('LPOS', batch_key(batch, 'now'), ARGV[i])) then return 0 end
end
for i = 3, #ARGV, 2 do
  local unit, id = ARGV[i], ARGV[i + 1]
  local mark = redis.call('HGET', batch_key(batch, 'units'), unit)
  if not mark then mark_unit(batch, unit, id, 'queued') end
end
return 1
