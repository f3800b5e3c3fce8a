#!lua flags=allow-oom
-- Removes a batch and everything beside it.
-- ARGV: 1 batch id
-- Returns: 1, or 0 where there is none.
-- @include lib/batch_removal

local batch = unpack(ARGV)
return remove_batch(batch) and 1 or 0
