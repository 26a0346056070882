-- Redis' own clock, ms since the epoch: the only clock scripts use.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Milliseconds as 13 digits.
local function digits(ms)
  return string.format('%.0f', ms)
end
