#!lua flags=allow-oom
-- Gives up the oldest events of a slot that is past the outbox's capacity, and counts them in the same step: a loss is
-- never silent.
--
-- KEYS[1] outbox:{tag}   stream
-- KEYS[2] lost:{tag}     counter
-- ARGV[1] events to give up
--
-- Reply: { events given up now, events ever given up here }

local keep = redis.call('XLEN', KEYS[1]) - tonumber(ARGV[1])
local removed = redis.call('XTRIM', KEYS[1], 'MAXLEN', math.max(keep, 0))
if keep <= 0 then redis.call('DEL', KEYS[1]) end
return { removed, redis.call('INCRBY', KEYS[2], removed) }
