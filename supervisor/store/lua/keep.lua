-- One change of what operators set: the record, its history, and the mark that orders such changes.
--   KEYS: leader, hash, history
--   ARGV: token, epoch, kept (the mark), field, record ("" removes it), entry of the history, max_len of it
--   gives 1; 0 another leads; -1 the leader's key is gone (nothing was written)
local h = redis.call('HMGET', KEYS[1], 'token', 'epoch')
if not h[2] then return -1 end
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then return 0 end
if ARGV[5] == '' then
  redis.call('HDEL', KEYS[2], ARGV[4])
else
  redis.call('HSET', KEYS[2], ARGV[4], ARGV[5])
end
redis.call('XADD', KEYS[3], 'MAXLEN', '=', ARGV[7], '*', 'm', ARGV[6])
redis.call('HSET', KEYS[1], 'kept', ARGV[3])
return 1
