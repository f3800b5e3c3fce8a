-- What live workers offer, as each publishes it (`workers.fleet.catalog`): capability -> nothing, or the problem.
--
-- What one worker publishes that cannot be read counts as nothing.
-- @include lib/clock
-- @include lib/locks

-- Whether a live worker offers the capability. The worker that came last is looked at first; `without` is
-- left out.
local function is_offered(capability, without)
  for _, worker in ipairs(redis.call('ZREVRANGE', KEY.WORKERS, 0, -1)) do
    local key = KEY.WORKER_PREFIX .. worker .. ':readiness'
    local word = worker ~= without and is_held(key, LIMIT.MAX_LIVE_S) and redis.pcall('GET', key)
    if type(word) == 'string' then
      local is_read, readiness = pcall(cjson.decode, word)
      if is_read and type(readiness) == 'table' and readiness[capability] == cjson.null then return true end
    end
  end
  return false
end

-- Whether the workers could publish lately: not for some seconds after a time without any sweep, as when
-- Redis stood still and what they had published expired.
local function is_settled()
  local swept, patient_until = unpack(redis.call('HMGET', KEY.SWEEPS, 'swept', 'patient_until'))
  if swept and elapsed_s(swept) > LIMIT.GAP_S then return false end
  return not is_ahead(patient_until, LIMIT.PATIENCE_S)
end
