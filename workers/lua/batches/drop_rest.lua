#!lua flags=allow-oom
-- Fails all units of a batch that were not queued; of those in hand, those without a job.
-- ARGV: 1 batch id, 2 code and 3 detail of the problem
-- Returns: nothing.
-- @include lib/batches
-- @include lib/keys

local batch, code, detail = unpack(ARGV)
if redis.call('HGET', batch_key(batch), 'state') ~= 'running' then return end
local problem = {code = code, detail = detail}
for _, unit in ipairs(redis.call('LRANGE', batch_key(batch, 'now'), 0, -1)) do
  local mark = redis.call('HGET', batch_key(batch, 'units'), unit)
  local id = mark and string.match(mark, '^q (%S+)')
  if id and redis.call('EXISTS', job_key(id)) == 0 then
    mark_unit(batch, unit, id, 'failed', cjson.encode(problem))
  end
end
drop_rest(batch, 'failed', {code, detail})
update_batch(batch)
