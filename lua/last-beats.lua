#!lua flags=no-writes
-- When sessions were last heard of.
--
-- KEYS    session:{id} of each   string, JSON
--
-- Replies: text with 13 characters for each session: its last beat, ms; blanks where it is absent.

local beats = {}
for i = 1, #KEYS do
  local beat = redis.call('GETRANGE', KEYS[i], '43', '55')
  beats[i] = beat == '' and string.rep(' ', 13) or beat
end
return table.concat(beats)
