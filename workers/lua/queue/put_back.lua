#!lua flags=allow-oom
-- Puts popped jobs that no slot took back to their turn.
-- ARGV: 1… job ids
-- Returns: the number of jobs that wait again.
-- @include lib/ending
-- @include lib/fair_queue
-- @include lib/keys
-- @include lib/waiting

local returned = 0
for _, id in ipairs({unpack(ARGV)}) do
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
return returned
