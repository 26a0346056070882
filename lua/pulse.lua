#!lua flags=allow-oom
-- The service's own pulse for a group of slots. A gap in it means that we were away, not our viewers: then nobody is ended
-- for silence until the grace is over. It also hands the sweep of the group to one instance per interval.
--
-- KEYS[1] pulse:{tag}   string: '<last pulse ms>:<last sweep ms>:<grace until ms>'
-- ARGV[1] longest gap that is no outage, ms   ARGV[2] grace, ms   ARGV[3] sweep interval, ms   ARGV[4] TTL of the key, ms
-- ARGV[5] '1' to ask for the sweep, '0' not to
--
-- Reply: { now ms, grace until ms (0: none), 1 if the caller is to sweep now else 0 }

--- @include clock

local value = redis.call('GET', KEYS[1])
local now = clock()
local pulse, sweep, grace = now, 0, 0
if value then
  local a, b, c = string.match(value, '^(%d+):(%d+):(%d+)$')
  pulse, sweep, grace = tonumber(a), tonumber(b), tonumber(c)
end
if now - pulse > tonumber(ARGV[1]) then grace = now + tonumber(ARGV[2]) end
local mine = 0
-- Four fifths: a timer that fires a little early must not skip its turn.
if ARGV[5] == '1' and now - sweep >= 0.8 * tonumber(ARGV[3]) then
  mine, sweep = 1, now
end
redis.call('SET', KEYS[1], digits(now) .. ':' .. digits(sweep) .. ':' .. digits(grace), 'PX', ARGV[4])
return { now, grace > now and grace or 0, mine }
