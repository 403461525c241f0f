-- Which of the commands that the exchange needs this user may not run. KEYS: fleet, log. ARGV: channel, and the key of an answer ('' if none lie here).
-- Before Redis 7 a script cannot know; the exchange then tells by failing.
if not redis.acl_check_cmd then return {} end
local fleet, log, channel, answer = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
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
if answer ~= '' then
  needs('STRLEN', answer)
  needs('GETRANGE', answer, '0', '1')
  needs('GET', answer)
  needs('SET', answer, '', 'PX', '1')
  needs('PEXPIRE', answer, '1')
  needs('DEL', answer)
end
return denied
