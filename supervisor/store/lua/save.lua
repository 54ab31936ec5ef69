-- Write values that the leader alone may write.
--   KEYS: leader, then one for each value
--   ARGV: token, epoch, then for each key: ttl_s, value
--   gives 1; 0 another leads; -1 the leader's key is gone (nothing was written)
local h = redis.call('HMGET', KEYS[1], 'token', 'epoch')
if not h[2] then return -1 end
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then return 0 end
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[2 * i], 'EX', ARGV[2 * i - 1])
end
return 1
