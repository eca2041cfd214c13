-- Renews a node's lease, and ends the nodes whose lease is over.
-- ARGV: run, epoch, node, lease in ms, pause in ms, newest format that the node knows, and how many ms after the last
-- messages from a store were added the history counts as complete.
-- Returns the last id, the time, the snapshot's id, how many live nodes have a lower number, the newest format that all
-- of them know, and the id up to which the history is written (0: unknown).
local log, refusal = log_of_node()
if not log then return refusal end
local now, lease = clock(), tonumber(ARGV[4])
local last = tonumber(redis.call('HGET', META, 'beat') or '0')
if now < last or now - last > tonumber(ARGV[5]) then
  -- No node has renewed its lease for so long that the engine or its clock must be the cause.
  for _, node in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    redis.call('ZADD', LEASES, now + lease, node)
  end
end
redis.call('ZADD', LEASES, now + lease, log.node)
redis.call('HSET', META, 'beat', whole(now))
local ended = redis.call('ZRANGE', LEASES, '-inf', '(' .. whole(now), 'BYSCORE')
if #ended > 0 then
  advance(log)
  for _, node in ipairs(ended) do end_node(log, node) end
  save(log)
end
local lower = 0
for _, node in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
  if tonumber(node) < tonumber(log.node) then lower = lower + 1 end
end
local format = common_format(ARGV[6])
if format > tonumber(redis.call('HGET', META, 'format')) then
  -- From now on, no node that does not know it can join.
  redis.call('HSET', META, 'format', whole(format))
end
local history = redis.call('HMGET', META, 'kept', 'complete', 'merged')
if not history[3] then
  redis.call('HSET', META, 'merged', whole(now))
elseif not history[2] and now - tonumber(history[3]) > tonumber(ARGV[7]) then
  redis.call('HSET', META, 'complete', '1')
end
return {log.id, math.max(log.time, now), log.snapshot, lower, format, tonumber(history[1] or '0')}
