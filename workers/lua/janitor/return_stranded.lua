#!lua flags=allow-oom
-- Puts back popped jobs that no slot has taken for too long: the slot died in between.
-- ARGV: 1 seconds, 2 most jobs
-- Returns: ids of the jobs that wait again.
-- @include lib/clock
-- @include lib/ending
-- @include lib/fair_queue
-- @include lib/guard
-- @include lib/keys
-- @include lib/rq
-- @include lib/waiting

local limit_s, most = unpack(ARGV)
local seen = KEY.POPPED_SINCE
local here, returned = {}, {}
local function look(id)
  here[id] = true
  local since = redis.call('HGET', seen, id)
  if not since or tonumber(since) > NOW then
    redis.call('HSET', seen, id, NOW_TEXT)
  elseif NOW - since >= tonumber(limit_s) then
    redis.call('LREM', RQ.INTERMEDIATE, 1, id)
    here[id] = nil
    local turn = read_turn(id)
    if redis.call('HGET', entry_key(id), 'status') ~= 'queued' then
      end_removed(id)
    elseif turn and redis.call('HGET', job_key(id), 'state') == 'queued' then
      enqueue(id, turn, true)
      returned[#returned + 1] = id
    else
      end_entry(id, 'failed') -- none of ours
    end
  end
end
for _, id in ipairs(redis.call('LRANGE', RQ.INTERMEDIATE, 0, most - 1)) do
  guarded('popped jobs', id, function() redis.call('LREM', RQ.INTERMEDIATE, 0, id) end, look, id)
end
for _, id in ipairs(redis.call('HKEYS', seen)) do
  if not here[id] then redis.call('HDEL', seen, id) end
end
return returned
