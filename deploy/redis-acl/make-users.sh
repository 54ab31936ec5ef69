#!/bin/sh
# Redis users for one fleet: the ACL file goes to stdout (passwords hashed), the URLs to stderr.
#   sh make-users.sh FLEET WORKER...        a user for each worker, which is what quorum counts on
#   sh make-users.sh FLEET --shared         one account for all workers, for trying it out
# HOST=redis:6379 sets what the URLs name.
set -eu

usage() { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
fleet=$1; shift
host=${HOST:-redis:6379}
name_ok() { printf '%s' "$1" | LC_ALL=C grep -Eq "$2"; }
name_ok "$fleet" '^[a-z0-9][a-z0-9._-]{0,62}$' || { echo "not a fleet's name: $fleet" >&2; exit 2; }
p="sv:v1:{$fleet}:"

password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
digest() {
  if command -v sha256sum >/dev/null 2>&1; then printf '%s' "$1" | sha256sum | cut -d' ' -f1
  else printf '%s' "$1" | shasum -a 256 | cut -d' ' -f1; fi
}
made() { printf '%-24s redis://%s:%s@%s/0\n' "$1" "$1" "$2" "$host" >&2; }

# What every client says when it comes, stays and goes. Not by subcommand: Redis 7.0 lacks some that newer have.
connection='+ping +auth +hello +select +quit +reset +client -@admin -@dangerous'

supervisor() {
  secret=$(password); user="sv-supervisor"
  made "$user" "$secret"
  # @dangerous holds FLUSHALL, CONFIG, DEBUG, KEYS and the like; INFO is in it too and does no harm.
  echo "user $user on #$(digest "$secret") resetkeys resetchannels -@all ~$p* &$p*" \
    "+@all $connection +info -script|flush -script|kill -function"
}

worker() { # $1: the user's name, $2: the worker's id in keys, * for all
  secret=$(password)
  made "$1" "$secret"
  # Each pair of brackets is a selector: a command must be allowed on all of its keys by one of them.
  # EVALSHA without EVAL or SCRIPT LOAD runs only what the leader has loaded, with this user's own rights.
  echo "user $1 on #$(digest "$secret") resetkeys resetchannels -@all &${p}wake $connection" \
    "+time +multi +exec +discard +subscribe +unsubscribe" \
    "(~${p}in:$2 ~${p}worker:$2 +xadd +xtrim +xlen +hset +hdel +hgetall +expire +pexpire +del +unlink)" \
    "(%W~${p}session:* +hset +hdel +expire +pexpire +del +unlink)" \
    "(%W~${p}workers %W~${p}sessions +zadd +zrem +zremrangebyscore +zremrangebyrank)" \
    "(%W~${p}faults %W~${p}sessions:ended +xadd)" \
    "(%R~${p}strategy %R~${p}limits %R~${p}leader +hgetall +hget +hmget +hlen)" \
    "(%R~${p}directive:$2 +xread +xrange +xrevrange +xlen)" \
    "(~${p}limit:* +evalsha +hget +hmget +hgetall +hset +hdel +hincrby +hincrbyfloat +expire +pexpire)"
}

echo "user default off"
supervisor
if [ "$1" = --shared ]; then
  [ $# -eq 1 ] || usage
  worker sv-worker-shared '*'
else
  for id in "$@"; do
    name_ok "$id" '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$' || { echo "not a worker's id: $id" >&2; exit 2; }
    worker "sv-worker-$id" "$id"
  done
fi
