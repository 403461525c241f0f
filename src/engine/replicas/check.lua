-- Which of the commands that the exchange needs this user may not run. KEYS: fleet, log. ARGV: channel.
-- Before Redis 7 a script cannot know; the exchange then tells by failing.
if not redis.acl_check_cmd then return {} end
local fleet, log, channel = KEYS[1], KEYS[2], ARGV[1]
local denied = {}
local function needs(...)
  if not redis.acl_check_cmd(...) then denied[#denied + 1] = (...) end
end
needs('INFO', 'server')
needs('TIME')
needs('HGETALL', fleet)
needs('HSET', fleet, 'f', 'v')
needs('HDEL', fleet, 'f')
needs('XADD', log, '1-1', 'f', 'v')
needs('XRANGE', log, '-', '+')
needs('DEL', log)
needs('PUBLISH', channel, '')
needs('SUBSCRIBE', channel)
return denied
