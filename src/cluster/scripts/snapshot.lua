-- Replaces the snapshot with a later one, and trims the log.
-- ARGV: run, epoch, node, the new one's id, id of the one that it replaces, first id to keep in the log, snapshot.
-- Returns 1; 0 if another node was faster.
local log, refusal = log_of_node()
if not log then return refusal end
local id = tonumber(ARGV[4])
if log.snapshot ~= tonumber(ARGV[5]) or id <= log.snapshot or id > log.id then return 0 end
redis.call('SET', SNAPSHOT, ARGV[7])
redis.call('HSET', META, 'snapshot', whole(id))
-- What follows the snapshot is kept in any case. Without LIMIT 0, at most 10,000 entries are trimmed.
local keep = math.min(tonumber(ARGV[6]), id)
redis.call('XTRIM', LOG, 'MINID', '~', whole(keep) .. '-0', 'LIMIT', 0)
return 1
