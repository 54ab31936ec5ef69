-- Put back everything that operators set (an emptied or older Redis), or nothing.
--   KEYS: leader, then the hashes
--   ARGV: token, epoch, kept (the mark), then for each hash: n, n x (field, record)
--   gives 1; 0 another leads; -1 the leader's key is gone (nothing was written)
local h = redis.call('HMGET', KEYS[1], 'token', 'epoch')
if not h[2] then return -1 end
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then return 0 end
local at = 4
for k = 2, #KEYS do
  redis.call('DEL', KEYS[k])
  local n = tonumber(ARGV[at])
  for i = 1, n do
    redis.call('HSET', KEYS[k], ARGV[at + 2 * i - 1], ARGV[at + 2 * i])
  end
  at = at + 2 * n + 1
end
redis.call('HSET', KEYS[1], 'kept', ARGV[3])
return 1
