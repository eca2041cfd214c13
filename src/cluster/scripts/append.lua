-- Appends entries of a node.  ARGV: epoch, node, sequence number of the first entry, entries.
-- Skips those that are in the log, so a batch can be sent again.  Returns the last id and the time.
local log, refusal = log_of(ARGV[1], ARGV[2])
if not log then return refusal end
local first = tonumber(ARGV[3])
if first > log.seen + 1 then
  return redis.error_reply('GAP ' .. whole(log.seen) .. ' is the last sequence number')
end
advance(log)
local seen = log.seen
for argument = 4, #ARGV do
  local sequence = first + argument - 4
  if sequence > seen then
    add(log, ARGV[2], sequence, ARGV[argument])
    seen = sequence
  end
end
if seen > log.seen then
  save(log)
  redis.call('HSET', META, 'node:' .. ARGV[2], whole(seen))
end
return {log.id, log.time}
