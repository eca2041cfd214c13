-- Adds messages from a node's store that the history lacks, after the engine was filled.
-- ARGV: epoch, id of the last entry that the store has applied, 1 if these are the last ones, then the id and the text
-- of each message.
-- Returns 1; 0: try again later, with what the store has then.
local meta = redis.call('HMGET', META, 'epoch', 'kept', 'forgotten', 'deletions')
if meta[1] ~= ARGV[1] then return redis.error_reply('EPOCH ' .. (meta[1] or 'none')) end
local kept = tonumber(meta[2] or '0')
-- It is unknown which messages were deleted since the store was read.
if tonumber(meta[3] or '0') > tonumber(ARGV[2]) or (kept == 0 and #ARGV > 3) then return 0 end
local is_deleted = {}
for id in string.gmatch(meta[4] or '', '%d+ (%d+) ') do is_deleted[id] = true end
for argument = 4, #ARGV, 2 do
  local id = ARGV[argument]
  if tonumber(id) <= kept and not is_deleted[id] and redis.call('ZCOUNT', HISTORY, id, id) == 0 then
    redis.call('ZADD', HISTORY, id, ARGV[argument + 1])
  end
end
redis.call('HSET', META, 'merged', whole(clock()))
if ARGV[3] == '1' then redis.call('HSET', META, 'complete', '1') end
return 1
