-- Adds a node to the chat.  ARGV: name, newest format that it knows, oldest format that it knows, lease in ms, its last
-- number (or 0), then of a node that was in the chat when an epoch ended: that epoch and its last sequence number (or
-- '', 0), and run of the engine.  It keeps its number only in that case, and only if the chat continues what the node
-- has appended.
-- Returns epoch, mark, node, last id, the snapshot's id, and the newest format that all nodes know.
local meta = redis.call('HMGET', META, 'epoch', 'mark', 'id', 'snapshot', 'format', 'kept:' .. ARGV[5])
if not meta[1] then return redis.error_reply('EMPTY there is no chat') end
local format = tonumber(meta[5])
if format > tonumber(ARGV[2]) or format < tonumber(ARGV[3]) then
  return redis.error_reply('FORMAT ' .. whole(format))
end
local now, node = clock(), ARGV[5]
if ARGV[6] ~= '' and meta[6] == ARGV[6] then
  local seen = tonumber(redis.call('HGET', META, 'node:' .. node))
  redis.call('HDEL', META, 'kept:' .. node)
  redis.call('HSET', META, 'node:' .. node, whole(math.max(seen, tonumber(ARGV[7]))))
else
  if redis.call('HGET', META, 'numbers') ~= ARGV[8] then
    -- A restarted engine may have lost the numbers that it assigned last, while their nodes still read the log. Some
    -- numbers are skipped, and how many depends on the time, because it may lose those that it assigns now as well.
    redis.call('HINCRBY', META, 'nodes', 16 * (1 + math.floor(now / 1000) % 256))
    redis.call('HSET', META, 'numbers', ARGV[8])
  end
  -- With its last number again, it would seem to have kept its place.
  repeat node = whole(redis.call('HINCRBY', META, 'nodes', 1)) until node ~= ARGV[5]
  -- Node numbers have 24 bits.
  if tonumber(node) >= 16777216 then return redis.error_reply('NUMBERS all node numbers are used') end
  redis.call('HSET', META, 'node:' .. node, '0')
end
redis.call('HSET', META, 'name:' .. node, ARGV[1], 'format:' .. node, ARGV[2])
redis.call('ZADD', LEASES, now + tonumber(ARGV[4]), node)
return {meta[1], meta[2], tonumber(node), tonumber(meta[3]), tonumber(meta[4]), common_format(ARGV[2])}
