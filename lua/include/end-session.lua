-- The record as it is remembered: one lifecycle change more, and the client's last position where it gave one.
local function last_record(record, at, position, heard_at)
  local beat = at
  if position == '' then beat, heard_at = beat_of(record), heard_at_of(record) end
  return with_head(record, status_of(record), seq_of(record) + 1, beat, position, heard_at)
end

-- Ends one session: the only place where a slot is released. The caller has read the record and decided.
-- own: the session's keys { session, ended }; user: { slots, index, due, outbox }; ending: { type, reason, end_reason,
-- ended_by (JSON text), at (ms), ttl (ms), metadata }. Returns the outbox entry's id and the text kept under ended:{id}.
local function end_session(own, user, id, record, ending)
  local ended = '{"ended_at":' .. digits(ending.at) .. ',"end_reason":"' .. ending.end_reason ..
    '","ended_by":' .. ending.ended_by .. ',"session":' .. record .. '}'
  redis.call('DEL', own.session)
  redis.call('SET', own.ended, ended, 'PX', ending.ttl)
  redis.call('SREM', user.slots, id)
  redis.call('SREM', user.index, id)
  redis.call('ZREM', user.due, id)
  local entry = write_event(user.outbox, ending.type, seq_of(record), ending.at, ending.reason, record, ending.metadata)
  return entry, ended
end
