#!lua
-- Admits one session or none: the slot, the record, the index, the due time and the start event appear together, and never
-- more than `limit` sessions hold a slot. Repeated with the same id it changes nothing and says so.
--
-- KEYS[1] session:{id}             string, JSON
-- KEYS[2] ended:{id}               string, JSON
-- KEYS[3] concurrency:{user}       set of session ids: the slots
-- KEYS[4] user:{user}:sessions     set of session ids: the index
-- KEYS[5] due:{tag}                sorted set, session id by ms
-- KEYS[6] outbox:{tag}             stream
-- KEYS[7+2i], KEYS[8+2i]           session:{m} and ended:{m} of the declared members, i = 0, 1, …
--
-- ARGV[1] session id               ARGV[2] record up to the beat     ARGV[3] record after the beat
-- ARGV[4] limit, sessions          ARGV[5] session timeout, ms       ARGV[6] session TTL, ms
-- ARGV[7] ended TTL, ms            ARGV[8] grace until, ms (0: none; nobody is ended for silence before)
-- ARGV[9] 'probe' | 'decide'       ARGV[10] 'reject' | 'supersede_oldest'
-- ARGV[11] how many of the declared members, the first ones, are to be superseded by name
-- ARGV[12] device id of the start  ARGV[13] metadata of the start, JSON text or ''
-- ARGV[14+i] ids of the declared members
--
-- Replies, flat; `now` in ms, `active` = SCARD after the call:
-- { 1, now, active, outbox entry, (outbox entry, ended text)… }   admitted; the sessions that gave way
-- { 2, now, active, record }      the session exists already
-- { 3, now, active, ended text }  it existed and has ended
-- { 4, now, active, member… }     at the limit; call again in mode 'decide' with these members declared
-- { 5, now, active, record… }     at the limit: refused; records of the declared live members
--
-- A member that is not declared counts as live and newest, and its keys are not touched.

--- @include clock
--- @include record
--- @include outbox
--- @include end-session

local id, limit, timeout = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[5])
local named = tonumber(ARGV[11])
local user = { slots = KEYS[3], index = KEYS[4], due = KEYS[5], outbox = KEYS[6] }
local now = clock()
local active = redis.call('SCARD', user.slots)

local existing = redis.call('GET', KEYS[1])
if existing then return { 2, now, active, existing } end
local ended = redis.call('GET', KEYS[2])
if ended then return { 3, now, active, ended } end

-- Sort the declared members that hold a slot: gone (nothing left to end), silent, named for take-over, live.
local gone, leaving, live = {}, {}, {}
local sessions = {}
for i = 7, #KEYS, 2 do sessions[#sessions + 1] = KEYS[i] end
local records = #sessions > 0 and redis.call('MGET', unpack(sessions)) or {}
for i = 14, #ARGV do
  local at = i - 14
  local member = { id = ARGV[i], session = KEYS[7 + 2 * at], ended = KEYS[8 + 2 * at], record = records[at + 1] }
  if redis.call('SISMEMBER', user.slots, member.id) == 1 then
    if not member.record then
      gone[#gone + 1] = member
    elseif now >= tonumber(ARGV[8]) and beat_of(member.record) + timeout <= now then
      member.reason = 'expired'
      leaving[#leaving + 1] = member
    elseif at < named then
      member.reason = 'superseded'
      leaving[#leaving + 1] = member
    else
      live[#live + 1] = member
    end
  end
end

local missing = active - #gone - #leaving - limit + 1
if missing > 0 then
  local members = { 4, now, active }
  if ARGV[9] == 'probe' or (ARGV[10] == 'supersede_oldest' and #live < missing) then
    for _, member in ipairs(redis.call('SMEMBERS', user.slots)) do members[#members + 1] = member end
    return members
  end
  if ARGV[10] == 'reject' then
    local refused = { 5, now, active }
    for _, member in ipairs(live) do refused[#refused + 1] = member.record end
    return refused
  end
  for _, member in ipairs(live) do member.started = started_of(member.record) end
  table.sort(live, function(a, b)
    if a.started == b.started then return a.id < b.id end
    return a.started < b.started
  end)
  for i = 1, missing do
    live[i].reason = 'superseded'
    leaving[#leaving + 1] = live[i]
  end
end

-- Everything is read and decided; from here on it writes.
local record = ARGV[2] .. digits(now) .. ARGV[3]
local reply = { 1, now, active - #gone - #leaving + 1, '' }
for _, member in ipairs(gone) do
  redis.call('SREM', user.slots, member.id)
  redis.call('SREM', user.index, member.id)
  redis.call('ZREM', user.due, member.id)
end
for _, member in ipairs(leaving) do
  local ended_by = 'null'
  if member.reason == 'superseded' then ended_by = '"' .. ARGV[12] .. '"' end
  local entry, text = end_session(member, user, member.id, last_record(member.record, now, '', ''), {
    type = 'playback.stopped', reason = member.reason, end_reason = member.reason, ended_by = ended_by,
    at = now, ttl = ARGV[7], metadata = ''
  })
  reply[#reply + 1] = entry
  reply[#reply + 1] = text
end
redis.call('SADD', user.slots, id)
redis.call('SADD', user.index, id)
redis.call('PEXPIRE', user.slots, ARGV[6])
redis.call('PEXPIRE', user.index, ARGV[6])
redis.call('SET', KEYS[1], record, 'PX', ARGV[6])
redis.call('ZADD', user.due, digits(now + timeout), id)
reply[4] = write_event(user.outbox, 'playback.started', '1', now, '', record, ARGV[13])
return reply
