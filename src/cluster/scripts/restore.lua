-- Fills an engine that is empty or has lost entries. The nodes claim this, and after a wait, the one with the newest
-- state fills it.  ARGV: epoch found ('none': empty), claimant, rank of its state as text, wait in ms, id, node and
-- sequence number of the last entry that it has applied (or 0, 0, 0), snapshot ('': only claims).
-- With a snapshot also: new epoch, mark, format, lease in ms, time, id, highest node number, epoch of the node numbers,
-- and of each node of the state its number and last sequence number.
-- Returns WAIT, WIN (send the snapshot), DONE, OTHER (another epoch is there: join it), or FINE (nothing that the
-- claimant has applied is missing: join).
local meta = redis.call('HMGET', META, 'epoch', 'mark', 'snapshot')
if (meta[1] or 'none') ~= ARGV[1] then return 'OTHER' end
if meta[1] and tonumber(ARGV[5]) > 0 then
  if tonumber(meta[3]) > tonumber(ARGV[5]) then return 'FINE' end
  local id = ARGV[5] .. '-' .. meta[2]
  local entry = redis.call('XRANGE', LOG, id, id)[1]
  if entry and entry[2][2] == ARGV[6] and entry[2][4] == ARGV[7] then return 'FINE' end
end
local now, wait = clock(), tonumber(ARGV[4])
local claims = redis.call('HMGET', CLAIMS, 'since', 'for')
local since = tonumber(claims[1] or '0')
-- If the winner has died, the claims start again.
if claims[2] ~= ARGV[1] or now < since or now - since > 3 * wait + 2000 then
  redis.call('DEL', CLAIMS)
  redis.call('HSET', CLAIMS, 'since', whole(now), 'for', ARGV[1])
  since = now
end
redis.call('HSET', CLAIMS, 'claim:' .. ARGV[2], ARGV[3])
if now - since < wait then return 'WAIT' end
local best, winner = '', ''
local all = redis.call('HGETALL', CLAIMS)
for index = 1, #all, 2 do
  local claimant = string.match(all[index], '^claim:(.*)$')
  local rank = all[index + 1]
  if claimant and (rank > best or (rank == best and claimant < winner)) then best, winner = rank, claimant end
end
if winner ~= ARGV[2] then return 'WAIT' end
if ARGV[8] == '' then return 'WIN' end
redis.call('UNLINK', LOG, META, LEASES, CLAIMS)
redis.call('SET', SNAPSHOT, ARGV[8])
-- The time is that of the last entry: if it were the clock's, `tick.lua` would add no entry for the time in between.
redis.call('HSET', META, 'epoch', ARGV[9], 'mark', ARGV[10], 'format', ARGV[11], 'beat', whole(now), 'id', ARGV[14],
  'snapshot', ARGV[14], 'time', ARGV[13], 'nodes', ARGV[15])
for index = 17, #ARGV, 2 do
  local node = ARGV[index]
  redis.call('HSET', META, 'node:' .. node, ARGV[index + 1], 'kept:' .. node, ARGV[16])
  redis.call('ZADD', LEASES, now + tonumber(ARGV[12]), node)
end
return 'DONE'
