#!lua flags=allow-oom
-- Removes delivered events from outboxes, and the emptied streams with them: an idle slot holds no key.
--
-- KEYS    outbox:{tag} of each   stream
-- ARGV    for each the number of its entries, then their ids
--
-- Reply: { entries removed }

local total, at = 0, 1
for i = 1, #KEYS do
  local count = tonumber(ARGV[at])
  local removed = redis.call('XDEL', KEYS[i], unpack(ARGV, at + 1, at + count))
  if removed > 0 and redis.call('XLEN', KEYS[i]) == 0 then redis.call('DEL', KEYS[i]) end
  total, at = total + removed, at + count + 1
end
return { total }
