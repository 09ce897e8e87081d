-- The store was found without its memory: who rebuilds it, and from when on?
--
-- KEYS[1] the epoch, [2] the run of the server that it is known of, [3] since when it is
-- missed, [4] who rebuilds. ARGV[1] the server's run now, ARGV[2] '1' when it had not our
-- script, ARGV[3] who asks, ARGV[4] how long (microseconds) what was given may still be
-- used, ARGV[5] how long (ms) one may take to rebuild.
-- Returns {1, now} when it is known again; else {0, now, since when, '1' for the one that
-- is to rebuild it now}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
if ARGV[2] == '1' and redis.call('GET', KEYS[2]) ~= ARGV[1] then
  -- Of another life of the server, or of another server: a snapshot, a replica's copy.
  redis.call('DEL', KEYS[1])
end
if redis.call('GET', KEYS[1]) then return {1, now} end
if redis.call('HGET', KEYS[3], 'run') ~= ARGV[1] then
  redis.call('HSET', KEYS[3], 'run', ARGV[1], 'at', string.format('%.0f', now))
end
local at = redis.call('HGET', KEYS[3], 'at')
local mine = 0
if now >= tonumber(at) + tonumber(ARGV[4])
  and redis.call('SET', KEYS[4], ARGV[3], 'NX', 'PX', ARGV[5]) then mine = 1 end
return {0, now, at, mine}
