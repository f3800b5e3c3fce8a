#!lua flags=allow-oom
-- Fails waiting jobs, and units of batches, of models that live workers serve with other weights alone.
-- They were left to a worker with the weights that they were requested of, and the last of those is gone.
-- Where nobody serves a model of that name, they wait.
-- ARGV: 1 most jobs
-- Returns: ids of the jobs that failed.
-- @include lib/batches
-- @include lib/ending
-- @include lib/fair_queue
-- @include lib/guard
-- @include lib/keys
-- @include lib/offers
-- @include lib/rq
-- @include lib/waiting

local most = unpack(ARGV)
most = tonumber(most)
local failed, known = {}, {}
if not is_settled() then return failed end

local function is_unserved(capability)
  if known[capability] == nil then
    local name = without_version(capability)
    known[capability] = name ~= capability and is_offered(name) and not is_offered(capability)
  end
  return known[capability]
end

local function problem(what)
  return {what, 'the workers have other weights of the model, or another method, than when this was ' ..
    'requested; request it again'}
end

local function fail(id)
  dequeue(id)
  end_job(id, 'failed', problem('model_unavailable'))
  end_entry(id, 'failed')
  failed[#failed + 1] = id
end

local function fail_units(batch)
  local capability = redis.call('HGET', batch_key(batch), 'model')
  if capability and is_unserved(capability) then
    drop_rest(batch, 'failed', problem('model_changed'))
    update_batch(batch)
  end
end

for _, priority in ipairs(PRIORITIES) do
  for _, capability in ipairs(redis.call('HKEYS', offsets_key(priority))) do
    if #failed < most and is_unserved(capability) then
      for _, member in ipairs(redis.call('ZRANGE', ready_key(priority, capability), 0, most - #failed - 1)) do
        local id = string.sub(member, 18)
        guarded('waiting jobs', id, function() drop_from_index(priority, capability, member) end, fail, id)
      end
    end
  end
end
for _, batch in ipairs(redis.call('SMEMBERS', KEY.RUNNING_BATCHES)) do
  guarded('running batches', batch, function() redis.call('SREM', KEY.RUNNING_BATCHES, batch) end,
    fail_units, batch)
end
return failed
