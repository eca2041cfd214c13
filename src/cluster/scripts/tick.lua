-- Advances the log's time to a moment, by an entry, unless another entry has done so or the moment has not come.
-- ARGV: run, epoch, node, moment in ms.  Returns the last id and the time.
local log, refusal = log_of_node()
if not log then return refusal end
local moment, now = tonumber(ARGV[4]), clock()
if log.time < moment and now >= moment then
  advance(log)
  add(log, '0', 0, 'T')
  save(log)
end
return {log.id, math.max(log.time, now)}
