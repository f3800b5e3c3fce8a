#!lua flags=allow-oom
-- Takes a token out of the bucket of an API key: GCRA, the generic cell rate algorithm (ITU-T I.371 annex A).
-- The bucket is one number: when everything that was taken will have been filled in again. Runs in a full
-- Redis too: whoever polls a job there needs an answer.
-- ARGV: 1 key id, 2 tokens of a full bucket, 3 seconds in which an empty one is filled
-- Returns: {1 if granted else 0, seconds until the bucket is full}.
-- @include lib/clock

local id, rate, window_s = unpack(ARGV)
local bucket, gap_s = KEY.REQUESTS_PREFIX .. id, window_s / rate
local filled = tonumber(redis.call('GET', bucket))
-- An empty bucket is filled after the window; one that takes longer is of a clock that was set back.
if not is_ahead(filled, window_s + gap_s) then filled = NOW end
local taken = 0
if filled + gap_s - NOW <= window_s + gap_s / 1000 then
  taken, filled = 1, filled + gap_s
  redis.call('SET', bucket, string.format('%.6f', filled), 'PX', math.ceil((filled - NOW) * 1000))
end
return {taken, string.format('%.6f', filled - NOW)}
