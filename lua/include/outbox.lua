-- Events are written by the script that changes the state they tell of, and stay until Kafka has acknowledged them.
-- `record` is the session's raw text after the change, `metadata` JSON text of the client's or ''.
local function write_event(outbox, event_type, seq, at, reason, record, metadata)
  return redis.call('XADD', outbox, '*', 'type', event_type, 'seq', seq, 'at', digits(at), 'reason', reason,
    'metadata', metadata, 'record', record)
end
