#!lua flags=allow-oom
-- Removes jobs without a record from an index. One requested anew in between has a record.
-- ARGV: 1 key of the index, 2… job ids
-- Returns: nothing.
-- @include lib/keys

local key = unpack(ARGV)
for _, id in ipairs({unpack(ARGV, 2)}) do
  if redis.call('EXISTS', job_key(id)) == 0 then redis.call('ZREM', key, id) end
end
