#!lua flags=allow-oom
-- Renews sessions, each by itself: writes the beat (Redis' time), the position and the text of the last heartbeat, nothing else, so it
-- cannot undo a pause that happens at the same time. An absent session stays absent: SETRANGE alone would create the key.
-- A heartbeat that comes sooner after the previous one than the gap allows writes nothing; of several of one session in one call
-- the first counts. A start or a change of status is no heartbeat: one may follow it at once.
--
-- KEYS    session:{id} of each   string, JSON
-- ARGV[1] shortest gap between two heartbeats of a session, ms; 0: none
-- ARGV[2] for each, one after another, the 67 bytes after the beat (position and last_heartbeat); one text, because the sender pays for each argument
--
-- Replies: { now ms, text } with 45 characters for each session: the record from its status to its previous beat, as it was; its first
-- character is '!' where the heartbeat came too soon; blanks where the session is absent. One text, because a reply of many elements
-- costs the reader more than the call; and as it was, because each piece cut out costs as much as the whole.

--- @include clock

local now = clock()
local beat, gap, blocks = digits(now), tonumber(ARGV[1]), ARGV[2]
local renewals = {}
for i = 1, #KEYS do
  local head = redis.call('GETRANGE', KEYS[i], '0', '55')
  if head == '' then
    renewals[i] = string.rep(' ', 45)
  else
    local since = now - string.sub(head, 44, 56)
    -- A beat ahead of this clock is by another master's: nobody has to wait for it. A tab after the position: it was no heartbeat's.
    if since < gap and since >= 0 and redis.call('GETRANGE', KEYS[i], '78', '78') ~= '\t' then
      renewals[i] = '!' .. string.sub(head, 13, 56)
    else
      redis.call('SETRANGE', KEYS[i], '43', beat .. string.sub(blocks, 67 * i - 66, 67 * i))
      renewals[i] = string.sub(head, 12, 56)
    end
  end
end
return { now, table.concat(renewals) }
