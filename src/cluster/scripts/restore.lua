-- Decides which state the chat continues with, after the engine was found empty or was restarted. Until then, nothing
-- is appended: entries after a part that was lost would fork the log. Each node claims to have a state. The one with
-- the newest state then finds that the engine has all of it, or fills the engine.
-- ARGV: run, epoch found ('none': empty), claimant, its node number (0: none), rank of its state as text, wait in ms,
-- id, node, sequence number and time of the last entry that it has applied (or 0, 0, 0, 0), snapshot ('': only claims).
-- With a snapshot also: new epoch, mark, format, lease in ms, highest node number, epoch of the node numbers, and of
-- each node of the state its number and last sequence number.
-- Returns WAIT, WIN (send the snapshot), DONE, FINE (continue: the engine has all that the claimant has applied),
-- BEHIND (read the log to its end, and claim again), or OTHER (join the chat that is there).
local RUN, FOUND, CLAIMANT, NUMBER, RANK, WAIT = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local APPLIED, TIME, NEW = ARGV[7], ARGV[10], ARGV[11]
local meta = redis.call('HMGET', META, 'epoch', 'run', 'mark', 'snapshot', 'nodes', 'id')
if (meta[1] or 'none') ~= FOUND then return 'OTHER' end
local has_all = false
if meta[1] then
  local id = APPLIED .. '-' .. meta[3]
  local entry = redis.call('XRANGE', LOG, id, id)[1]
  if entry then
    has_all = entry[2][2] == ARGV[8] and entry[2][4] == ARGV[9] and entry[2][6] == TIME
  else
    -- It is part of the snapshot, or it is missing.
    has_all = tonumber(meta[4]) >= tonumber(APPLIED)
  end
  if meta[2] == RUN then return has_all and 'FINE' or 'OTHER' end
end

local now, case = clock(), FOUND .. ' ' .. RUN
local claims = redis.call('HMGET', CLAIMS, 'since', 'for')
local since = tonumber(claims[1] or '0')
-- If the winner has died, the claims start again.
if claims[2] ~= case or now < since or now - since > 4 * WAIT + 2000 then
  redis.call('DEL', CLAIMS)
  redis.call('HSET', CLAIMS, 'since', whole(now), 'for', case)
  since = now
end
redis.call('HSET', CLAIMS, 'claim:' .. CLAIMANT, RANK, 'node:' .. NUMBER, 1)
local best, winner = '', ''
local all = redis.call('HGETALL', CLAIMS)
for index = 1, #all, 2 do
  local claimant = string.match(all[index], '^claim:(.*)$')
  local rank = all[index + 1]
  if claimant and (rank > best or (rank == best and claimant < winner)) then best, winner = rank, claimant end
end
if winner ~= CLAIMANT then return 'WAIT' end
local have_all_claimed = true
for _, node in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
  have_all_claimed = have_all_claimed and redis.call('HEXISTS', CLAIMS, 'node:' .. node) == 1
end
if has_all and have_all_claimed then
  redis.call('UNLINK', CLAIMS)
  redis.call('HSET', META, 'run', RUN)
  return 'FINE'
end
if meta[1] and not have_all_claimed then
  WAIT = WAIT * 4
elseif string.sub(best, 1, 1) == '2' then
  -- Running nodes take longer than starting ones, because they have to connect again first.
  WAIT = WAIT * 3 / 2
end
if now - since < WAIT then return 'WAIT' end
-- The missing node may have had entries that are lost. Clients that have seen their ids must not take others for them,
-- so the epoch changes. What the log has beyond the winner's state belongs to the chat.
if has_all and tonumber(APPLIED) < tonumber(meta[6]) then return 'BEHIND' end
if NEW == '' then return 'WIN' end
local nodes = math.max(tonumber(ARGV[16]), tonumber(meta[5] or '0'))
redis.call('UNLINK', LOG, META, LEASES, CLAIMS)
-- It is unknown to which chat the history belongs.
if not meta[1] then redis.call('UNLINK', HISTORY) end
redis.call('SET', SNAPSHOT, NEW)
-- The time is that of the last entry: if it were the clock's, `tick.lua` would add no entry for the time in between.
redis.call('HSET', META, 'epoch', ARGV[12], 'run', RUN, 'mark', ARGV[13], 'format', ARGV[14], 'beat', whole(now),
  'id', APPLIED, 'snapshot', APPLIED, 'time', TIME, 'nodes', whole(nodes),
  'numbers', RUN)
for index = 18, #ARGV, 2 do
  local node = ARGV[index]
  redis.call('HSET', META, 'node:' .. node, ARGV[index + 1], 'kept:' .. node, ARGV[17])
  redis.call('ZADD', LEASES, now + tonumber(ARGV[15]), node)
end
return 'DONE'
