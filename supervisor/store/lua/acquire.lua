-- Take the lease if nobody holds it, with an epoch above every epoch ever seen.
--   KEYS: leader
--   ARGV: token, owner, ttl_ms, floor (lowest epoch that will do), take_missing (1: also when the key is gone)
--   gives {taken 0|1, epoch, revision, now_ms, left_ms, missing 0|1, owner, kept}
-- The lease is an instant in a field, not a TTL: the epoch has to outlive it.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local h = redis.call('HMGET', KEYS[1], 'token', 'until_ms', 'epoch', 'revision', 'ttl_ms', 'owner', 'kept')
local missing = h[3] and 0 or 1
local epoch = tonumber(h[3] or '0')
local revision = tonumber(h[4] or '0')
local left = tonumber(h[2] or '0') - now
-- Longer than any lease can last: the clock went back (failover); such a lease must not hold for hours.
if left > 2 * tonumber(h[5] or ARGV[3]) then left = 0 end
local free = left <= 0 or h[1] == ARGV[1]
if missing == 1 and ARGV[5] ~= '1' then free = false end
if not free then
  return {0, epoch, revision, now, math.max(left, 0), missing, h[6] or '', h[7] or ''}
end
epoch = math.max(epoch + 1, now, tonumber(ARGV[4]))
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'owner', ARGV[2], 'ttl_ms', ARGV[3],
  'until_ms', string.format('%.0f', now + tonumber(ARGV[3])), 'epoch', string.format('%.0f', epoch))
redis.call('EXPIRE', KEYS[1], 86400)
return {1, epoch, revision, now, tonumber(ARGV[3]), missing, ARGV[2], h[7] or ''}
