#!lua flags=allow-oom
-- Pauses or resumes one session and writes the event with it. Also renews the session: the client is there.
--
-- KEYS[1] session:{id}   string, JSON
-- KEYS[2] outbox:{tag}   stream
-- ARGV[1] new status, 'active' | 'paused'   ARGV[2] event type
-- ARGV[3] position padded to its width, or '' to keep it   ARGV[4] now as ISO 8601 text   ARGV[5] metadata, JSON text or ''
--
-- Replies: { 1, now ms, outbox entry, record } changed | { 2, now ms, '', record } already so, nothing written
--          { 0, now ms, '', '' } absent

--- @include clock
--- @include record
--- @include outbox

local record = redis.call('GET', KEYS[1])
local now = clock()
if not record then return { 0, now, '', '' } end
if status_of(record) == ARGV[1] then return { 2, now, '', record } end
local seq = seq_of(record) + 1
local changed = with_head(record, ARGV[1], seq, now, ARGV[3], ARGV[4])
redis.call('SETRANGE', KEYS[1], '0', string.sub(changed, 1, 123))
local entry = write_event(KEYS[2], ARGV[2], seq, now, '', changed, ARGV[5])
return { 1, now, entry, changed }
