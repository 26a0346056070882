#!lua flags=allow-oom
-- Renews one session: writes the beat (Redis' time), the position and the text of the last heartbeat, nothing else, so it
-- cannot undo a pause that happens at the same time. An absent session stays absent: SETRANGE alone would create the key.
--
-- KEYS[1] session:{id}   string, JSON
-- ARGV[1] the 67 bytes after the beat (position and last_heartbeat)
--
-- Replies: { 1, now ms, status, seq, previous beat ms } | { 0, now ms, '', 0, 0 } absent

--- @include record

local head = redis.call('GETRANGE', KEYS[1], 0, 55)
local now = clock()
if head == '' then return { 0, now, '', 0, 0 } end
redis.call('SETRANGE', KEYS[1], 43, digits(now) .. ARGV[1])
return { 1, now, status_of(head), seq_of(head), beat_of(head) }
