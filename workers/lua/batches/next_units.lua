#!lua
-- Takes the next units of a claimed batch, as many as fit its window, and renews the claim.
-- Units in hand already come first: their worker died over them, or the store did not answer.
-- ARGV: 1 batch id, 2 token, 3 seconds of the claim, 4 most units
-- Returns: units.
-- @include lib/batches
-- @include lib/keys

local batch, token, claim_s, most = unpack(ARGV)
local key, now, again = batch_key(batch), batch_key(batch, 'now'), batch_key(batch, 'again')
if redis.call('GET', batch_key(batch, 'claim')) ~= token then return {} end
redis.call('EXPIRE', batch_key(batch, 'claim'), claim_s)
local state, cancel, total, cursor, window, queued, units =
  unpack(redis.call('HMGET', key, 'state', 'cancel_requested', 'total', 'cursor', 'window', 'queued',
    'units'))
if state ~= 'running' or cancel then return {} end
local hand = {}
for _, unit in ipairs(redis.call('LRANGE', now, 0, -1)) do
  local mark = redis.call('HGET', batch_key(batch, 'units'), unit)
  if mark and not OPEN_LETTERS[string.sub(mark, 1, 1)] then
    redis.call('LREM', now, 0, unit)
  elseif #hand < tonumber(most) then
    hand[#hand + 1] = unit
  end
end
if #hand > 0 then return hand end
local room = math.min(tonumber(most), window - queued)
while #hand < room do
  local unit = redis.call('LPOP', again)
  if not unit then break end
  hand[#hand + 1] = unit
end
if #hand < room and tonumber(cursor) < tonumber(total) then
  local chosen = cjson.decode(units)
  while #hand < room and tonumber(cursor) < tonumber(total) do
    local unit = chosen.stop and chosen.start + cursor * chosen.step or chosen[cursor + 1]
    hand[#hand + 1] = string.format('%d', unit)
    cursor = cursor + 1
  end
  redis.call('HSET', key, 'cursor', cursor)
end
if #hand > 0 then redis.call('RPUSH', now, unpack(hand)) end
return hand
