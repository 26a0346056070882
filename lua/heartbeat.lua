#!lua flags=allow-oom
-- Renews sessions, each by itself: writes the beat (Redis' time), the position and the text of the last heartbeat, nothing else, so it
-- cannot undo a pause that happens at the same time. An absent session stays absent: SETRANGE alone would create the key.
--
-- KEYS    session:{id} of each   string, JSON
-- ARGV[1] for each, one after another, the 67 bytes after the beat (position and last_heartbeat); one text, because the sender pays for each argument
--
-- Replies: { now ms, text } with 29 characters for each session: status (6), seq (10), previous beat ms (13); blanks where it is absent.
-- One text, because a reply of many elements costs the reader more than the call.

--- @include record

local now = clock()
local beat = digits(now)
local blocks = ARGV[1]
local renewals = {}
for i = 1, #KEYS do
  local head = redis.call('GETRANGE', KEYS[i], 0, 55)
  if head == '' then
    renewals[i] = string.rep(' ', 29)
  else
    redis.call('SETRANGE', KEYS[i], 43, beat .. string.sub(blocks, 67 * i - 66, 67 * i))
    renewals[i] = string.sub(head, 12, 17) .. string.sub(head, 26, 35) .. string.sub(head, 44, 56)
  end
end
return { now, table.concat(renewals) }
