-- Give the lease back, so that a standby need not wait for its end. The epoch stays.
--   KEYS: leader
--   ARGV: token, epoch
--   gives 1, or 0 when it was not ours any more
local h = redis.call('HMGET', KEYS[1], 'token', 'epoch')
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'until_ms', '0', 'token', '')
return 1
