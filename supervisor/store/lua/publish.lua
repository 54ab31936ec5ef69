-- A new strategy: state, snapshots, removals and revision together, then the wake-ups.
--   KEYS: leader, strategy, state
--   ARGV: token, epoch, revision, head (what field "_" holds), state, state_ttl_s, channel,
--         n, n x (target, snapshot), n, n x target, n, n x wake
--   gives 1; 0 another leads; -1 the leader's key is gone (nothing was written)
local h = redis.call('HMGET', KEYS[1], 'token', 'epoch')
if not h[2] then return -1 end
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then return 0 end
local at = 8
local n = tonumber(ARGV[at])
for i = 1, n do
  redis.call('HSET', KEYS[2], ARGV[at + 2 * i - 1], ARGV[at + 2 * i])
end
at = at + 2 * n + 1
n = tonumber(ARGV[at])
for i = 1, n do
  redis.call('HDEL', KEYS[2], ARGV[at + i])
end
at = at + n + 1
redis.call('HSET', KEYS[2], '_', ARGV[4])
redis.call('SET', KEYS[3], ARGV[5], 'EX', ARGV[6])
redis.call('HSET', KEYS[1], 'revision', ARGV[3])
n = tonumber(ARGV[at])
for i = 1, n do
  redis.call('PUBLISH', ARGV[7], ARGV[at + i])
end
return 1
