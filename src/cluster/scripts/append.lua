-- Appends entries of a node.  ARGV: run, epoch, node, sequence number of the first entry, entries.
-- Skips those that are in the log, so a batch can be sent again.  Returns the last id and the time.
local log, refusal = log_of_node()
if not log then return refusal end
local first = tonumber(ARGV[4])
if first > log.seen + 1 then
  return redis.error_reply('GAP ' .. whole(log.seen) .. ' is the last sequence number')
end
advance(log)
local seen = log.seen
for argument = 5, #ARGV do
  local sequence = first + argument - 5
  if sequence > seen then
    add(log, log.node, sequence, ARGV[argument])
    seen = sequence
  end
end
if seen > log.seen then
  save(log)
  redis.call('HSET', META, 'node:' .. log.node, whole(seen))
end
return {log.id, log.time}
