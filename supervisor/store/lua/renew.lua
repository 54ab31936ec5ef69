-- Keep the lease, and say whether what the leader wrote is still there.
--   KEYS: leader, strategy, state
--   ARGV: token, epoch, ttl_ms
--   gives {held, now_ms, strategy 0|1, state 0|1}; held: 1 kept, 0 another leads, -1 the key is gone
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local h = redis.call('HMGET', KEYS[1], 'token', 'epoch')
local there = {redis.call('EXISTS', KEYS[2]), redis.call('EXISTS', KEYS[3])}
if not h[2] then return {-1, now, there[1], there[2]} end
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then return {0, now, there[1], there[2]} end
redis.call('HSET', KEYS[1], 'until_ms', string.format('%.0f', now + tonumber(ARGV[3])))
redis.call('EXPIRE', KEYS[1], 86400)
return {1, now, there[1], there[2]}
