-- Removal of a batch, and everything beside it.
-- @include lib/keys

-- Removes a batch; whether there was one.
local function remove_batch(batch)
  local key = batch_key(batch)
  local caller, model = unpack(redis.call('HMGET', key, 'caller', 'model'))
  if not caller then return false end
  for _, id in ipairs(redis.call('HKEYS', batch_key(batch, 'open'))) do
    redis.call('SREM', batches_of_job_key(id), batch)
  end
  for _, part in ipairs({'units', 'open', 'again', 'now', 'claim'}) do
    redis.call('DEL', batch_key(batch, part))
  end
  redis.call('DEL', key, subscriptions_key(batch))
  redis.call('SREM', KEY.RUNNING_BATCHES, batch)
  redis.call('SREM', running_batches_of_key(caller), batch)
  if model then redis.call('ZREM', due_batches_key(model), batch) end
  redis.call('ZREM', KEY.BATCHES, batch)
  redis.call('ZREM', KEY.BATCHES_OF_PREFIX .. caller, batch)
  return true
end
