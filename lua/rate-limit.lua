#!lua flags=allow-oom
-- Takes a request of each user from what he may do, each by itself, or says how long he has to wait. The generic cell rate algorithm in its
-- virtual scheduling form (ITU-T I.371, annex A): the key holds the time at which the user's requests so far would have come at an even rate.
-- A request may be ahead of it by the burst; a refused one takes nothing.
--
-- KEYS    rate:{user} of each   string: that time, µs since the epoch; it expires when it has passed
-- ARGV[1] requests per minute, at an even rate; as many may come at once
--
-- Replies: { now ms, text } with 5 characters for each user: how long to wait, ms; 0 where the request may go on.

--- @include clock

local MINUTE = 60000000
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
-- Whole, so that the last one of a burst is not lost to rounding.
local interval = math.floor(MINUTE / tonumber(ARGV[1]))
local waits = {}
for i = 1, #KEYS do
  -- Never further ahead than a full burst: a clock that was set back, or a lower limit than before, locks nobody out.
  local due = math.min(math.max(tonumber(redis.call('GET', KEYS[i]) or now), now), now + MINUTE)
  local wait = due + interval - MINUTE - now
  if wait > 0 then
    waits[i] = string.format('%-5d', math.ceil(wait / 1000))
  else
    redis.call('SET', KEYS[i], digits(due + interval), 'PX', math.ceil((due + interval - now) / 1000))
    waits[i] = '0    '
  end
end
return { math.floor(now / 1000), table.concat(waits) }
