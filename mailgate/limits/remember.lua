-- The store has lost its memory, or never had one: from now on it remembers.
-- KEYS[1] the epoch; ARGV[1] '1' when nothing can have been forgotten. An epoch only grows.
local time = redis.call('TIME')
local since = tonumber(time[1]) * 1000000 + tonumber(time[2])
if ARGV[1] == '1' then since = 0 end
local known = redis.call('GET', KEYS[1])
if not known or tonumber(known) < since then
  redis.call('SET', KEYS[1], string.format('%.0f', since))
end
return since
