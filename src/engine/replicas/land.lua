-- A fetch has ended. KEYS: the answer, the fetch. ARGV: how answers of this epoch begin, the entry that its fetch knew, its
-- token ('' if it was granted none), the answer ('' if there is none for others), milliseconds of the answer, of what is left
-- of the fetch, the channel, what to say there.
local answer, fetch = KEYS[1], KEYS[2]
local beginning, seq, token, value = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local said = 'none'
if value ~= '' then
  local head = redis.call('GETRANGE', answer, 0, 35)
  local newer = string.sub(head, 1, 20) == beginning and (tonumber(string.sub(head, 21)) or 0) > seq
  said = newer and 'older' or 'put'
  if not newer then redis.call('SET', answer, value, 'PX', ARGV[5]) end
end
local held = token ~= '' and redis.call('GET', fetch)
if held and string.sub(held, 1, 16) == token then
  if value ~= '' then
    redis.call('DEL', fetch)
  else
    redis.call('SET', fetch, string.sub(held, 1, 48) .. 'o', 'PX', ARGV[6])
  end
  redis.call('PUBLISH', ARGV[7], ARGV[8])
end
return said
