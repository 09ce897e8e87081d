-- From now on the store remembers. Whoever comes second changes nothing.
--
-- KEYS[1] the epoch, [2] the run of the server that it is known of, [3] since when it was
-- missed, [4] who rebuilt, [5..] limits whose uses are known. ARGV[1] the server's run,
-- ARGV[2] since when it was missed, ARGV[3] '1' when nothing can have been forgotten,
-- ARGV[4] the longest reach, ARGV[5] the limits' states as JSON [[window, tat, moments…],
-- …], with now as zero. Returns 1 when this was what counted.
if redis.call('GET', KEYS[1]) then return 0 end
if redis.call('HGET', KEYS[3], 'run') ~= ARGV[1] or redis.call('HGET', KEYS[3], 'at') ~= ARGV[2] then
  return 0
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local since = now
if ARGV[3] == '1' then since = 0 end
for number, known in ipairs(cjson.decode(ARGV[5])) do
  local state = {0, known[2] + now, since}
  for j = 3, #known do state[j + 1] = known[j] + now end
  -- As long as it would mean something, and as long as none would mean "unknown".
  local ms = math.ceil((tonumber(ARGV[4]) + 2 * known[1]) / 1000) + 1000
  redis.call('SET', KEYS[number + 4], cmsgpack.pack(state), 'PX', string.format('%.0f', ms))
end
redis.call('SET', KEYS[1], string.format('%.0f', since))
redis.call('SET', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3], KEYS[4])
return 1
