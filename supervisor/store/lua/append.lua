-- Append to streams that the leader alone may write.
--   KEYS: leader, then the streams
--   ARGV: token, epoch, then for each entry: key's number (2 is the first stream), exact 0|1, max_len,
--         ttl_s (0: none), n, n x (field, value)
--   gives 1; 0 another leads; -1 the leader's key is gone (nothing was written)
local h = redis.call('HMGET', KEYS[1], 'token', 'epoch')
if not h[2] then return -1 end
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then return 0 end
local at = 3
while at <= #ARGV do
  local key = KEYS[tonumber(ARGV[at])]
  local n = tonumber(ARGV[at + 4])
  local fields = {}
  for i = 1, 2 * n do fields[i] = ARGV[at + 4 + i] end
  redis.call('XADD', key, 'MAXLEN', ARGV[at + 1] == '1' and '=' or '~', ARGV[at + 2], '*', unpack(fields))
  if ARGV[at + 3] ~= '0' then redis.call('EXPIRE', key, ARGV[at + 3]) end
  at = at + 5 + 2 * n
end
return 1
