#!lua flags=allow-oom
-- Removes delivered events from the outbox, and the emptied stream with them: an idle slot holds no key.
--
-- KEYS[1] outbox:{tag}   stream
-- ARGV[i] entry ids
--
-- Reply: { entries removed }

local removed = redis.call('XDEL', KEYS[1], unpack(ARGV))
if removed > 0 and redis.call('XLEN', KEYS[1]) == 0 then redis.call('DEL', KEYS[1]) end
return { removed }
