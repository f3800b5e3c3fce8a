#!lua flags=allow-oom
-- Withdraws the caller of a canceled batch from jobs of it.
-- What the caller wants in another batch goes on there, and what others want goes on for them. A run that is
-- asked to stop stays open until it has.
-- ARGV: 1 batch id, 2… job ids
-- Returns: nothing.
-- @include lib/batches
-- @include lib/keys
-- @include lib/withdrawal

local batch = unpack(ARGV)
local caller = redis.call('HGET', batch_key(batch), 'caller')
if not caller or redis.call('HEXISTS', batch_key(batch), 'cancel_requested') == 0 then return end
for _, id in ipairs({unpack(ARGV, 2)}) do
  local unit = redis.call('HGET', batch_key(batch, 'open'), id)
  if unit and wanted_elsewhere(batch, id, caller) then
    mark_unit(batch, unit, id, 'canceled')
  elseif unit then
    withdraw(id, caller == LIMIT.ANONYMOUS and '' or caller)
    local state = redis.call('HGET', job_key(id), 'state')
    local open = redis.call('HEXISTS', batch_key(batch, 'open'), id) == 1
    if open and state ~= 'running' then mark_unit(batch, unit, id, 'canceled') end
  end
end
update_batch(batch)
