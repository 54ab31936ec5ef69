-- Set fields of hashes that the leader alone may write, and renew their TTL.
--   KEYS: leader, then the hashes
--   ARGV: token, epoch, ttl_s, then for each hash: n, n x (field, value)
--   gives 1; 0 another leads; -1 the leader's key is gone (nothing was written)
local h = redis.call('HMGET', KEYS[1], 'token', 'epoch')
if not h[2] then return -1 end
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then return 0 end
local at = 4
for k = 2, #KEYS do
  local n = tonumber(ARGV[at])
  for i = 1, n do
    redis.call('HSET', KEYS[k], ARGV[at + 2 * i - 1], ARGV[at + 2 * i])
  end
  redis.call('EXPIRE', KEYS[k], ARGV[3])
  at = at + 2 * n + 1
end
return 1
