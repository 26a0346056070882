#!lua flags=allow-oom
-- Ends one session that has been silent for longer than the timeout, or puts off looking at it again. Of any number of
-- reapers one wins: the winner removes the due entry in the same step, the others find it gone.
--
-- KEYS[1] session:{id}          string, JSON      KEYS[2] ended:{id}     string, JSON
-- KEYS[3] concurrency:{user}    set               KEYS[4] user:{user}:sessions  set
-- KEYS[5] due:{tag}             sorted set        KEYS[6] outbox:{tag}   stream
-- ARGV[1] session id   ARGV[2] session timeout, ms   ARGV[3] grace until, ms   ARGV[4] ended TTL, ms
--
-- Replies: { 1, now ms, outbox entry, ended text } expired | { 2, now ms, '', '' } alive, or grace holds: re-armed
--          { 0, now ms, '', '' } gone: ended already, or its record is lost

--- @include clock
--- @include record
--- @include outbox
--- @include end-session

local timeout = tonumber(ARGV[2])
local record = redis.call('GET', KEYS[1])
local listed = redis.call('ZSCORE', KEYS[5], ARGV[1])
local now = clock()
if not listed then return { 0, now, '', '' } end
if not record then
  redis.call('ZREM', KEYS[5], ARGV[1])
  return { 0, now, '', '' }
end
local lapses = math.max(beat_of(record) + timeout, tonumber(ARGV[3]))
if lapses > now then
  redis.call('ZADD', KEYS[5], digits(lapses), ARGV[1])
  return { 2, now, '', '' }
end
local entry, ended = end_session(
  { session = KEYS[1], ended = KEYS[2] },
  { slots = KEYS[3], index = KEYS[4], due = KEYS[5], outbox = KEYS[6] },
  ARGV[1], last_record(record, now, '', ''),
  { type = 'playback.stopped', reason = 'expired', end_reason = 'expired', ended_by = 'null', at = now, ttl = ARGV[4], metadata = '' }
)
return { 1, now, entry, ended }
