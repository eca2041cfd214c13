-- Ends a node at its own request, after the last of its entries.  ARGV: run, epoch, node.  Returns the last id and the time.
local log, refusal = log_of_node()
if not log then return refusal end
advance(log)
end_node(log, log.node)
save(log)
return {log.id, log.time}
