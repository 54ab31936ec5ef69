-- Take workers out of the index whose record has run out.
--   KEYS: workers, then the records
--   ARGV: the workers' ids, in the records' order
--   gives the ids that are gone
local gone = {}
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    redis.call('ZREM', KEYS[1], ARGV[i - 1])
    gone[#gone + 1] = ARGV[i - 1]
  end
end
return gone
