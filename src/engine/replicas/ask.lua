-- What there is for one key: its answer, or who fetches it. If neither, whoever asks is to fetch it.
-- KEYS: the answer, the fetch. ARGV: how answers of this epoch begin, the least entry that one must know, a random token,
-- the entry that the asker knows, milliseconds, the longest answer, the head of one that was refused.
local answer, fetch = KEYS[1], KEYS[2]
local beginning, least, token, seq = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local lasts, longest, refused = ARGV[5], tonumber(ARGV[6]), ARGV[7]
local HEAD, KNOWS = 60, 21

local length = redis.call('STRLEN', answer)
if length > HEAD then
  local head = redis.call('GETRANGE', answer, 0, HEAD - 1)
  local knows = tonumber(string.sub(head, KNOWS, KNOWS + 15)) or -1
  if string.sub(head, 1, KNOWS - 1) == beginning and knows >= least and head ~= refused then
    if length > longest then return { 'long', head, length } end
    return { 'answer', redis.call('GET', answer) }
  end
end

-- A token, an epoch, the entry that its replica knew, and what of it.
local held = redis.call('GET', fetch)
if held and #held == 49 and string.sub(held, 17, 32) == string.sub(beginning, 5)
  and (tonumber(string.sub(held, 33, 48)) or -1) >= least then
  -- What could not be kept for others is not waited for by them.
  if string.sub(held, 49) == 'o' then return { 'own' } end
  if string.sub(held, 1, 16) ~= token then return { 'held' } end
end
redis.call('SET', fetch, token .. string.sub(beginning, 5) .. seq .. 'f', 'PX', lasts)
return { 'granted' }
