-- Reads messages of the history, the newest first.
-- ARGV: epoch, id that they are before, how many, how many bytes, id of the newest message that nodes no longer have in
-- memory, how many up to that one are kept (there may be more: the history is only trimmed when it is written).
-- Returns the id up to which the history is written (0: unknown), whether it is complete, whether there are older
-- messages, and the messages: at least one.
local PART = 16
local meta = redis.call('HMGET', META, 'epoch', 'kept', 'complete')
if meta[1] ~= ARGV[1] then return redis.error_reply('EPOCH ' .. (meta[1] or 'none')) end
local count, bytes = tonumber(ARGV[3]), 0
local left = tonumber(ARGV[6]) - redis.call('ZCOUNT', HISTORY, ARGV[2], ARGV[5])
local page = {tonumber(meta[2] or '0'), meta[3] and 1 or 0, 0}
local index = 0
repeat
  -- In parts: most of what is wanted may exceed the bytes.
  local found = redis.call('ZREVRANGEBYSCORE', HISTORY, '(' .. ARGV[2], '-inf', 'LIMIT', index, PART)
  for _, message in ipairs(found) do
    index, bytes = index + 1, bytes + #message
    if index > left then return page end
    if index > count or (index > 1 and bytes > tonumber(ARGV[4])) then
      page[3] = 1
      return page
    end
    page[3 + index] = message
  end
until #found < PART
return page
