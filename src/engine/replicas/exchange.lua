-- The one script of the control path: it reads and writes the fleet and its log at once.
-- KEYS: fleet, log. ARGV: id, number, epoch ('' if none is known), applied seq, applied tag, fresh, ripe, leaving,
-- tag, batch ('' if there is none), a random epoch, settings' fingerprint, channel, then id and number of each silent one.
pcall(redis.replicate_commands)
local fleet, log = KEYS[1], KEYS[2]
local id, number, epoch, applied, applied_tag = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5]
local fresh, ripe, leaving, tag, batch = ARGV[6] == '1', ARGV[7] == '1', ARGV[8] == '1', ARGV[9], ARGV[10]
local random, agreed, channel = ARGV[11], ARGV[12], ARGV[13]
local MOST = 4096

local function whole(n) return string.format('%.0f', n) end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local h, members = {}, {}
local all = redis.call('HGETALL', fleet)
for i = 1, #all, 2 do
  local name, value = all[i], all[i + 1]
  if string.sub(name, 1, 2) == 'm:' then
    local position, last = string.match(value, '^(%d+) (%d+)')
    members[string.sub(name, 3)] = { tonumber(position) or 0, tonumber(last) or 0 }
  else
    h[name] = value
  end
end
local function member_field(name) return 'm:' .. name end

local began = ''
local function begin(why)
  began = why
  h = { epoch = random, run = run, seq = '0', tag = '', settled = '0', ripe = '0', t = whole(now), clock = h.clock or '0', agreed = agreed }
  members = {}
  redis.call('DEL', fleet)
  for name, value in pairs(h) do redis.call('HSET', fleet, name, value) end
  redis.call('DEL', log)
end
local function entry_tag(seq)
  local found = redis.call('XRANGE', log, seq .. '-1', seq .. '-1')
  if #found == 0 then return nil end
  return found[1][2][4]
end

if not (h.epoch and h.seq and h.settled and h.run and h.agreed and h.clock) then
  begin('missing')
elseif h.run ~= run then
  begin('run')
elseif h.agreed == agreed and h.epoch == epoch then
  if applied > tonumber(h.seq) then
    begin('ahead')
  elseif applied > 0 then
    local there = entry_tag(whole(applied))
    if there and there ~= applied_tag then begin('tag') end
  end
end

local function leave_out_silent()
  for i = 14, #ARGV - 1, 2 do
    local there = members[ARGV[i]]
    if there and there[2] == tonumber(ARGV[i + 1]) then
      redis.call('HDEL', fleet, member_field(ARGV[i]))
      members[ARGV[i]] = nil
    end
  end
end
local function behind_and_count(everybody)
  local behind, count = {}, 0
  for name, member in pairs(members) do
    count = count + 1
    if name ~= id and (everybody or member[1] < tonumber(h.seq)) then
      behind[#behind + 1] = name
      behind[#behind + 1] = whole(member[2])
    end
  end
  return behind, count
end

if h.agreed ~= agreed then
  -- Other settings, or another secret: such a replica is no member while there is one of the others.
  leave_out_silent()
  local behind, count = behind_and_count(true)
  if count > 0 then
    return { h.epoch, began, '0', '', '0', '0', '0', {}, behind, whole(count), '0', '1', whole(now), h.clock }
  end
  begin('missing')
end

if now < tonumber(h.t or '0') - 1000 then
  h.clock = whole(tonumber(h.clock) + 1)
  redis.call('HSET', fleet, 'clock', h.clock)
end
redis.call('HSET', fleet, 't', whole(now))
local same = h.epoch == epoch
if ripe and same and h.ripe ~= '1' then
  h.ripe = '1'
  redis.call('HSET', fleet, 'ripe', '1')
end

local seq, unknown, late = tonumber(h.seq), false, false
local there = members[id]
if there and number <= there[2] then
  late = true
elseif leaving then
  if there then
    redis.call('HDEL', fleet, member_field(id))
    members[id] = nil
  end
else
  local position = seq
  if same and not fresh then
    unknown = there == nil
    position = math.max(there and there[1] or 0, applied)
  end
  members[id] = { position, number }
end

local own = 0
if batch ~= '' then
  seq = seq + 1
  own = seq
  h.seq, h.tag = whole(seq), tag
  redis.call('XADD', log, 'MAXLEN', '~', '16384', h.seq .. '-1', 'e', id .. batch, 't', tag)
  redis.call('HSET', fleet, 'seq', h.seq, 'tag', tag)
  local me = members[id]
  if me and not late and me[1] == seq - 1 then me[1] = seq end
  redis.call('PUBLISH', channel, 'a' .. h.epoch .. tag .. id .. string.format('%016.0f', seq) .. batch)
end
if members[id] and not late then
  redis.call('HSET', fleet, member_field(id), whole(members[id][1]) .. ' ' .. whole(members[id][2]) .. ' 1')
end

leave_out_silent()
local least = seq
for _, member in pairs(members) do
  if member[1] < least then least = member[1] end
end
if least > tonumber(h.settled) then
  h.settled = whole(least)
  redis.call('HSET', fleet, 'settled', h.settled)
  local settled_tag = least == seq and h.tag or entry_tag(h.settled)
  if settled_tag then
    redis.call('PUBLISH', channel, 's' .. h.epoch .. settled_tag .. string.format('%016.0f', least))
  end
end

local entries = {}
-- Whoever knows another epoch, or none, gets the latest: it outdates everything, and knows what was told lately.
local read = same and applied or 0
if read < seq then
  local from = math.max(read + 1, seq - MOST + 1)
  for _, entry in ipairs(redis.call('XRANGE', log, whole(from) .. '-1', '+')) do
    entries[#entries + 1] = string.match(entry[1], '^%d+')
    entries[#entries + 1] = entry[2][4]
    entries[#entries + 1] = entry[2][2]
  end
end
local behind, count = behind_and_count(false)
return { h.epoch, began, h.seq, h.tag, h.settled, h.ripe, whole(own), entries, behind, whole(count),
  unknown and '1' or '0', '0', whole(now), h.clock }
