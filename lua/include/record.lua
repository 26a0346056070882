-- The record's layout: twin of src/redis/record.ts, where it is drawn. Offsets are 1-based here, as in string.sub.

local function status_of(record) return string.sub(record, 12, 17) end
local function seq_of(record) return tonumber(string.sub(record, 26, 35)) end
local function beat_of(record) return tonumber(string.sub(record, 44, 56)) end
local function position_of(record) return string.sub(record, 69, 79) end
local function heard_at_of(record) return string.sub(record, 99, 122) end
local function started_of(record)
  local _, before = string.find(record, '"started_at":"', 124, true)
  return string.sub(record, before + 1, before + 24)
end

-- The record with a new head, marked as set by no heartbeat. `position` is padded to its width already; '' keeps the old one.
local function with_head(record, status, seq, beat, position, heard_at)
  if position == '' then position = position_of(record) end
  if string.byte(position, 11) == 32 then position = string.sub(position, 1, 10) .. '\t' end
  return '{"status":"' .. status .. '","seq":' .. string.format('%-10d', seq) .. ',"beat":' .. digits(beat) ..
    ',"position":' .. position .. ',"last_heartbeat":"' .. heard_at .. '"' .. string.sub(record, 124)
end
