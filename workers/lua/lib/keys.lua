-- Functions that complete the prefixes of `KEY` and `RQ`.

local function job_key(id) return KEY.JOB_PREFIX .. id end
-- The kind of a job.
local function kind_of(id) return redis.call('HGET', job_key(id), 'kind') or LIMIT.DEFAULT_KIND end
-- A capability without the version of the weights: `ModelInfo.version`.
local function without_version(capability) return (string.gsub(capability, '@%x+%.[^@]*$', '')) end
local function entry_key(id) return RQ.ENTRY_PREFIX .. id end
local function requesters_key(id) return KEY.REQUESTERS_PREFIX .. id end
local function requested_key(caller) return KEY.REQUESTED_PREFIX .. caller end
local function waiting_key(caller) return KEY.WAITING_PREFIX .. caller end

local function ready_key(priority, model) return KEY.READY_PREFIX .. priority .. ':' .. model end
local function offsets_key(priority) return KEY.OFFSETS_PREFIX .. priority end
local function fronts_key(priority) return KEY.FRONTS_PREFIX .. priority end
local function flows_key(priority, model)
  return KEY.FLOWS_PREFIX .. priority .. (model and ':' .. model or '')
end

local function events_key(id) return KEY.EVENTS_PREFIX .. id end
local function watched_key(id) return KEY.WATCHED_PREFIX .. id end

local function batch_key(batch, part)
  return KEY.BATCH_PREFIX .. batch .. (part and ':' .. part or '')
end
local function batches_of_job_key(id) return KEY.BATCHES_OF_JOB_PREFIX .. id end
local function due_batches_key(model) return KEY.DUE_BATCHES_PREFIX .. model end
local function running_batches_of_key(caller) return KEY.RUNNING_BATCHES_OF_PREFIX .. caller end

local function subscriptions_key(subject) return KEY.SUBSCRIPTIONS_PREFIX .. subject end
local function delivery_key(delivery) return KEY.DELIVERY_PREFIX .. delivery end
local function due_deliveries_key(receiver) return KEY.DUE_DELIVERIES_PREFIX .. receiver end
local function sent_key(...) return KEY.WEBHOOK_SENT_PREFIX .. redis.sha1hex(table.concat({...}, ' ')) end
local function deliveries_of_key(caller) return KEY.DELIVERIES_OF_PREFIX .. caller end
