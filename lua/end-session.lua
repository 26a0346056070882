#!lua flags=allow-oom
-- Ends one session by somebody's act: releases its slot, remembers how it ended and writes the one terminal event.
-- Repeated, it changes nothing and answers the first ending.
--
-- KEYS[1] session:{id}          string, JSON      KEYS[2] ended:{id}     string, JSON
-- KEYS[3] concurrency:{user}    set               KEYS[4] user:{user}:sessions  set
-- KEYS[5] due:{tag}             sorted set        KEYS[6] outbox:{tag}   stream
-- ARGV[1] session id            ARGV[2] event type                     ARGV[3] reason in the event
-- ARGV[4] end reason            ARGV[5] device that ends it, JSON text ARGV[6] ended TTL, ms
-- ARGV[7] position padded to its width, or '' to keep it               ARGV[8] now as ISO 8601 text
-- ARGV[9] metadata, JSON text or ''
--
-- Replies: { 1, now ms, outbox entry, ended text } ended now | { 2, now ms, '', ended text } had ended before
--          { 0, now ms, '', '' } unknown

--- @include clock
--- @include record
--- @include outbox
--- @include end-session

local record = redis.call('GET', KEYS[1])
local now = clock()
if not record then
  local ended = redis.call('GET', KEYS[2])
  if ended then return { 2, now, '', ended } end
  return { 0, now, '', '' }
end
local entry, ended = end_session(
  { session = KEYS[1], ended = KEYS[2] },
  { slots = KEYS[3], index = KEYS[4], due = KEYS[5], outbox = KEYS[6] },
  ARGV[1], last_record(record, now, ARGV[7], ARGV[8]),
  { type = ARGV[2], reason = ARGV[3], end_reason = ARGV[4], ended_by = ARGV[5], at = now, ttl = ARGV[6], metadata = ARGV[9] }
)
return { 1, now, entry, ended }
