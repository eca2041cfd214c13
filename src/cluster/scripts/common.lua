-- The beginning of every script. KEYS are always the same six.
local LOG, META, LEASES, SNAPSHOT, CLAIMS, HISTORY = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- Without an exponent, which large numbers would have.
local function whole(number)
  return string.format('%d', number)
end

-- Milliseconds since 1970.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The log, as seen by one of its nodes: nil and an error if the chat has been replaced, the engine has been restarted,
-- or the node has been ended.  ARGV of all scripts that use this: run of the engine, epoch, node.
local function log_of_node()
  local node = ARGV[3]
  local meta = redis.call('HMGET', META, 'epoch', 'run', 'mark', 'id', 'time', 'snapshot', 'node:' .. node)
  if meta[1] ~= ARGV[2] then
    return nil, redis.error_reply('EPOCH ' .. (meta[1] or 'none'))
  end
  if meta[2] ~= ARGV[1] then
    return nil, redis.error_reply('RESTARTED the engine may have lost entries')
  end
  if not meta[7] then
    return nil, redis.error_reply('FENCED node ' .. node .. ' has been ended')
  end
  return {
    mark = meta[3], id = tonumber(meta[4]), time = tonumber(meta[5]), snapshot = tonumber(meta[6]),
    seen = tonumber(meta[7]), node = node,
  }
end

-- Advances the log's time to the clock's. It never goes back.
local function advance(log)
  log.time = math.max(log.time, clock())
end

local function add(log, node, sequence, data)
  log.id = log.id + 1
  local id = whole(log.id) .. '-' .. log.mark
  redis.call('XADD', LOG, id, 'n', node, 'q', whole(sequence), 't', whole(log.time), 'd', data)
end

local function save(log)
  redis.call('HSET', META, 'id', whole(log.id), 'time', whole(log.time))
end

local function end_node(log, node)
  add(log, '0', 0, 'D' .. node)
  redis.call('ZREM', LEASES, node)
  redis.call('HDEL', META, 'node:' .. node, 'name:' .. node, 'format:' .. node, 'kept:' .. node)
end

-- The newest format that all live nodes know. After the engine was filled, those of nodes that have not come back are
-- not known: they know the chat's.
local function common_format(own)
  local lowest, current = tonumber(own), redis.call('HGET', META, 'format')
  for _, node in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    lowest = math.min(lowest, tonumber(redis.call('HGET', META, 'format:' .. node) or current))
  end
  return lowest
end
