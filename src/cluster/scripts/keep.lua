-- Writes changes of the history: messages that are kept, and those that were deleted.
-- ARGV: run, epoch, node, id after which it has all changes, 1 if perhaps no node has the earlier ones, most messages
-- to keep, their greatest age in ms ('': any), how many ids follow of messages that were deleted earlier, those ids, then
-- of each change the id of its entry, and the message or `D` and the id of the message that was deleted.
-- Skips changes that were written. Returns the id up to which all changes are written.
-- The most deletions that are remembered.
local DELETIONS = 100
local log, refusal = log_of_node()
if not log then return refusal end
local base, changes = tonumber(ARGV[4]), 9 + tonumber(ARGV[8])
-- An engine that was restarted may have lost these deletions.
for argument = 9, changes - 1 do
  redis.call('ZREMRANGEBYSCORE', HISTORY, ARGV[argument], ARGV[argument])
end
local kept = tonumber(redis.call('HGET', META, 'kept') or '')
if not kept then
  -- The engine was filled. Later messages in the history may come from entries that it has lost.
  redis.call('ZREMRANGEBYSCORE', HISTORY, '(' .. ARGV[4], '+inf')
  kept = base
elseif kept < base and ARGV[5] ~= '1' then
  -- Another node has what is missing.
  return kept
end
kept = math.max(kept, base)
-- The last deletions, which `merge.lua` must not undo: of each, the id of its entry and that of the message.
local deletions
for argument = changes, #ARGV, 2 do
  local id, change = tonumber(ARGV[argument]), ARGV[argument + 1]
  if id > kept then
    if string.sub(change, 1, 1) == 'D' then
      local deleted = string.sub(change, 2)
      redis.call('ZREMRANGEBYSCORE', HISTORY, deleted, deleted)
      deletions = (deletions or redis.call('HGET', META, 'deletions') or '') .. ARGV[argument] .. ' ' .. deleted .. ' '
    else
      redis.call('ZADD', HISTORY, ARGV[argument], change)
    end
    kept = id
  end
end
if deletions then
  local _, count = string.gsub(deletions, ' ', '')
  for _ = DELETIONS + 1, count / 2 do
    local at, rest = string.match(deletions, '^(%d+) %d+ (.*)$')
    redis.call('HSET', META, 'forgotten', at)
    deletions = rest
  end
  redis.call('HSET', META, 'deletions', deletions)
end
-- `deletions` does not contain those that the engine may have lost.
if changes > 9 then redis.call('HSET', META, 'forgotten', whole(kept)) end
redis.call('HSET', META, 'kept', whole(kept))
redis.call('ZREMRANGEBYRANK', HISTORY, 0, -(tonumber(ARGV[6]) + 1))
if ARGV[7] ~= '' then
  local oldest = clock() - tonumber(ARGV[7])
  -- One at a time: usually none is too old, and a message may be long.
  for _ = 1, 1000 do
    local message = redis.call('ZRANGE', HISTORY, 0, 0)[1]
    local time = message and string.match(message, '^%d+ %d+ (%d+)')
    if not time or tonumber(time) >= oldest then break end
    redis.call('ZREMRANGEBYRANK', HISTORY, 0, 0)
  end
end
return kept
