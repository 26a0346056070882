#!lua flags=no-writes
-- Sessions whose due time has come. One call for many slots: a sweep asks all 16,384 every few seconds, and as commands of their own
-- that was 6 % of a core.
--
-- KEYS    due:{tag} of each   sorted set, session id by ms
-- ARGV[1] now, ms
-- ARGV[2] most sessions of each slot
--
-- Replies: their ids, flat; an id tells its slot.

local ids = {}
for i = 1, #KEYS do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', ARGV[1], 'LIMIT', '0', ARGV[2])) do ids[#ids + 1] = id end
end
return ids
