-- Ends a node at its own request, after the last of its entries.  ARGV: epoch, node.  Returns the last id and the time.
local log, refusal = log_of(ARGV[1], ARGV[2])
if not log then return refusal end
advance(log)
end_node(log, ARGV[2])
save(log)
return {log.id, log.time}
