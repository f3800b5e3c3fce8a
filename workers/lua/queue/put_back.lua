#!lua flags=allow-oom
-- Puts popped jobs that no slot took back to their turn.
-- ARGV: 1… job ids
-- Returns: the number of jobs that wait again.
-- @include lib/ending
-- @include lib/fair_queue
-- @include lib/guard
-- @include lib/keys
-- @include lib/waiting

local returned = 0
local function look(id)
  local turn = read_turn(id)
  if redis.call('LREM', RQ.INTERMEDIATE, 0, id) > 0 then
    if turn and redis.call('HGET', entry_key(id), 'status') == 'queued' then
      enqueue(id, turn, true)
      returned = returned + 1
    else
      end_removed(id)
    end
  end
end
for _, id in ipairs({unpack(ARGV)}) do
  guarded('popped jobs', id, function() redis.call('LREM', RQ.INTERMEDIATE, 0, id) end, look, id)
end
return returned
