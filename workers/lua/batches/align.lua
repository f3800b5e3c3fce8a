#!lua flags=allow-oom
-- Counts units as they stand once their jobs were submitted: by the jobs' records, or as the store has them.
-- What was canceled or forgotten since it was taken in hand is let go. What the queue refused waits.
-- ARGV: 1 batch id, 2 token, 3 caller, 4 number of submitted units, 5… of each unit, job id, state and
--   detail; then the units that were refused
-- Returns: nothing.
-- @include lib/batches
-- @include lib/keys
-- @include lib/withdrawal

local batch, token, caller, submitted = unpack(ARGV)
local key, now = batch_key(batch), batch_key(batch, 'now')
local batch_state, cancel = unpack(redis.call('HMGET', key, 'state', 'cancel_requested'))
local mine = redis.call('GET', batch_key(batch, 'claim')) == token

local function count(unit, id, state, detail)
  local job = redis.call('HGET', job_key(id), 'state')
  if job and state ~= 'failed' then state, detail = job, unit_detail(id, job) end
  local mark = redis.call('HGET', batch_key(batch, 'units'), unit)
  if UNIT_STATES[string.sub(mark, 1, 1)] ~= state then mark_unit(batch, unit, id, state, detail) end
end

local function put_back(unit)
  local mark = redis.call('HGET', batch_key(batch, 'units'), unit)
  redis.call('LREM', now, 0, unit)
  if not mark or string.sub(mark, 1, 1) ~= 'q' then return end
  local id = string.match(mark, '^%a (%S+)')
  redis.call('HINCRBY', key, 'queued', -1)
  redis.call('HDEL', batch_key(batch, 'units'), unit)
  redis.call('HDEL', batch_key(batch, 'open'), id)
  redis.call('SREM', batches_of_job_key(id), batch)
  redis.call('LPUSH', batch_key(batch, 'again'), unit)
end

local at = 5
for _ = 1, tonumber(submitted) do
  local unit, id, job_state, detail = unpack(ARGV, at, at + 3)
  at = at + 4
  if redis.call('HEXISTS', batch_key(batch, 'open'), id) == 1 then
    count(unit, id, job_state, detail)
  elseif not batch_state or cancel then
    local whose = caller == LIMIT.ANONYMOUS and '' or caller
    if not wanted_elsewhere(batch, id, caller) then withdraw(id, whose) end
  end
  redis.call('LREM', now, 0, unit)
end
if not mine or batch_state ~= 'running' or cancel then return end
for i = #ARGV, at, -1 do put_back(ARGV[i]) end
