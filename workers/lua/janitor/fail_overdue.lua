#!lua flags=allow-oom
-- Fails waiting jobs whose deadline has passed.
-- A popped job keeps its deadline until it is taken: should it come back, it is found here.
-- ARGV: 1 most jobs
-- Returns: ids of the jobs that failed.
-- @include lib/clock
-- @include lib/ending
-- @include lib/fair_queue
-- @include lib/guard
-- @include lib/keys
-- @include lib/waiting

local most = unpack(ARGV)
local failed = {}
local function look(id)
  local turn = read_turn(id)
  if turn and redis.call('ZSCORE', ready_key(turn.priority, turn.model), turn.arrival .. ':' .. id) then
    dequeue(id)
    expire_waiting(id)
    failed[#failed + 1] = id
  elseif redis.call('HGET', job_key(id), 'state') ~= 'queued' then
    redis.call('ZREM', KEY.DEADLINES, id)
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.DEADLINES, '-inf', NOW_TEXT, 'LIMIT', 0, most)) do
  guarded('deadlines', id, function() redis.call('ZREM', KEY.DEADLINES, id) end, look, id)
end
return failed
