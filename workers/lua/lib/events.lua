-- Events of a job: written into its stream and published on the channel of the same name.
--
-- A stream that cannot be written costs an event, no more: the record says the same.
-- @include lib/batches
-- @include lib/guard
-- @include lib/keys
-- @include lib/webhooks

local function publish_event(id, kind, data)
  local at = redis.pcall('XADD', events_key(id), 'MAXLEN', '~', LIMIT.EVENT_STREAM_LENGTH, '*',
    'event', kind, 'data', data)
  if type(at) ~= 'string' then at = '-' end
  redis.call('PUBLISH', events_key(id), at .. ' ' .. kind .. ' ' .. data)
end

local function publish_state(id)
  local state, problem = unpack(redis.call('HMGET', job_key(id), 'state', 'problem'))
  if not state then return end
  local data = '{"state":"' .. state .. '","problem":' .. (problem or 'null') .. '}'
  if state == 'queued' and redis.call('EXISTS', events_key(id)) == 0 then
    -- A stream takes 4 KB from its first event on: the record of a job that only waits says enough.
    redis.call('PUBLISH', events_key(id), '- state ' .. data)
  else
    publish_event(id, 'state', data)
  end
  update_batches_of(id, state)
  if state == 'queued' or state == 'running' then
    redis.call('PERSIST', events_key(id))
  else
    redis.call('EXPIRE', events_key(id), LIMIT.EVENT_STREAM_TTL_S)
    guarded('subscriptions', id, function() redis.call('DEL', subscriptions_key(id)) end,
      make_deliveries, kind_of(id), id, state)
  end
end

-- For the caller alone, whatever becomes of the job; not in the stream, which others read too.
local function publish_withdrawal(id, caller)
  redis.call('PUBLISH', events_key(id), '- withdrawn ' .. caller)
end

local function publish_progress(id)
  local step, steps, activation = unpack(redis.call('HMGET', job_key(id), 'step', 'steps', 'activation'))
  local value = tonumber(activation or '')
  if not value or value ~= value or value == 1 / 0 or value == -1 / 0 then activation = 'null' end
  local progress = '{"step":' .. step .. ',"steps":' .. steps .. ',"activation":' .. activation .. '}'
  publish_event(id, 'progress', progress)
end
