"""Commands of all data types with the replies they must give, in order, on an empty database.

A row is (words, reply). `words` is split at blanks. Replies: OK is the status; str is compared as bytes; set() compares a list
without order; a type checks the kind; ERR... is an error that begins so.
"""
# SPDX-License-Identifier: BSD-3-Clause


class Status(str):
    pass


OK, QUEUED = Status("OK"), Status("QUEUED")
ERR, WRONGTYPE = "-ERR", "-WRONGTYPE"

STRINGS = [
    ("SET s hello", OK), ("GET s", "hello"), ("GET none", None), ("SETNX s x", 0), ("SETNX s2 x", 1), ("SET s y NX", None), ("SET s3 y XX", None),
    ("SET s hallo GET", "hello"), ("GETSET s hello", "hallo"), ("APPEND s _world", 11), ("STRLEN s", 11), ("STRLEN none", 0),
    ("GETRANGE s 0 4", "hello"), ("GETRANGE s -5 -1", "world"), ("SUBSTR s 1 2", "el"), ("SETRANGE s 5 -", 11), ("GET s", "hello-world"),
    ("SETRANGE pad 3 x", 4), ("GET pad", "\0\0\0x"), ("MSET a 1 b 2 c 3", OK), ("MGET a b none c", ["1", "2", None, "3"]), ("MSETNX a 9 d 9", 0),
    ("MSETNX d 4 e 5", 1), ("INCR a", 2), ("INCRBY a 40", 42), ("DECR a", 41), ("DECRBY a 11", 30), ("INCRBYFLOAT a 0.5", "30.5"), ("INCR a", ERR),
    ("INCR s", ERR), ("INCR fresh", 1), ("SETEX t 100 v", OK), ("TTL t", int), ("PSETEX t 100000 v", OK), ("PTTL t", int), ("GETEX t PERSIST", "v"),
    ("TTL t", -1), ("TTL none", -2), ("GETDEL t", "v"), ("EXISTS t", 0), ("SETBIT bits 7 1", 0), ("GETBIT bits 7", 1), ("GETBIT bits 6", 0),
    ("BITCOUNT bits", 1), ("BITPOS bits 1", 7), ("SETBIT bits2 6 1", 0), ("BITOP OR bits3 bits bits2", 1), ("BITCOUNT bits3", 2),
    ("BITOP NOT bits4 bits3", 1), ("BITFIELD bf SET u8 0 255 GET u8 0 INCRBY u8 0 1", [0, 255, 0]), ("BITFIELD_RO bf GET u8 0", [0]),
    ("LCS s s LEN", 11), ("PFADD hll a b c d", 1), ("PFADD hll a", 0), ("PFCOUNT hll", 4), ("PFADD hll2 d e", 1), ("PFMERGE hll3 hll hll2", OK),
    ("PFCOUNT hll3", 5), ("LPUSH s x", WRONGTYPE),
]

KEYS = [
    ("EXISTS s s none", 2), ("TYPE s", Status("string")), ("TYPE none", Status("none")), ("COPY s scopy", 1), ("COPY s scopy", 0), ("RENAME scopy s9", OK),
    ("RENAMENX s9 s", 0), ("RENAME none x", ERR), ("DEL s9 none", 1), ("UNLINK s2", 1), ("TOUCH s none", 1), ("EXPIRE s 100", 1), ("EXPIRE s 50 GT", 0),
    ("EXPIRE s 200 GT", 1), ("PERSIST s", 1), ("PERSIST s", 0), ("EXPIREAT s 99999999999", 1), ("EXPIRETIME s", 99999999999),
    ("PEXPIREAT s 99999999999000", 1), ("PEXPIRETIME s", 99999999999000), ("PEXPIRE s 0", 1), ("EXISTS s", 0), ("OBJECT ENCODING b", "int"),
    ("OBJECT REFCOUNT d", int), ("RANDOMKEY", bytes), ("KEYS hll*", {"hll", "hll2", "hll3"}), ("DBSIZE", int), ("MOVE b 1", 1), ("EXISTS b", 0), ("SELECT 1", OK), ("GET b", "2"), ("FLUSHDB", OK), ("SELECT 0", OK), ("SWAPDB 0 0", OK), ("WAIT 0 1", 0), ("DUMP none", None),
]

LISTS = [
    ("RPUSH l a b c", 3), ("LPUSH l z", 4), ("LRANGE l 0 -1", ["z", "a", "b", "c"]), ("LLEN l", 4), ("LINDEX l 1", "a"), ("LINDEX l 9", None),
    ("LINSERT l BEFORE b x", 5), ("LINSERT l AFTER nobody x", -1), ("LSET l 0 y", OK), ("LSET l 99 y", ERR), ("LPOS l b", 3), ("LREM l 1 x", 1), ("LPOP l", "y"),
    ("RPOP l", "c"), ("LPOP l 5", ["a", "b"]), ("EXISTS l", 0), ("LPUSHX l x", 0), ("RPUSHX l x", 0), ("RPUSH l 1 2 3 4 5", 5), ("LTRIM l 1 3", OK),
    ("LRANGE l 0 -1", ["2", "3", "4"]), ("RPOPLPUSH l m", "4"), ("LMOVE l m LEFT RIGHT", "2"), ("LRANGE m 0 -1", ["4", "2"]),
    ("LMPOP 2 none m LEFT COUNT 2", ["m", ["4", "2"]]), ("BLPOP l 1", ["l", "3"]), ("RPUSH l q", 1), ("BRPOP none l 1", ["l", "q"]), ("RPUSH l q", 1),
    ("BLMOVE l m LEFT LEFT 1", "q"), ("BRPOPLPUSH m l 1", "q"), ("BLMPOP 1 1 l RIGHT", ["l", ["q"]]), ("SET notlist 1", OK), ("LPUSH notlist 1", WRONGTYPE),
]

HASHES = [
    ("HSET h a 1 b 2", 2), ("HSET h a 3", 0), ("HGET h a", "3"), ("HGET h none", None), ("HMSET h c 4", OK), ("HMGET h a none c", ["3", None, "4"]),
    ("HGETALL h", ["a", "3", "b", "2", "c", "4"]), ("HKEYS h", {"a", "b", "c"}), ("HVALS h", {"3", "2", "4"}), ("HLEN h", 3), ("HEXISTS h a", 1),
    ("HDEL h a none", 1), ("HSETNX h b 9", 0), ("HSETNX h d 9", 1), ("HINCRBY h d 11", 20), ("HINCRBYFLOAT h d 0.5", "20.5"), ("HSTRLEN h d", 4),
    ("HRANDFIELD h", bytes), ("HRANDFIELD h 2 WITHVALUES", list), ("HSCAN h 0", list), ("HINCRBY h d 1", ERR), ("HGET l2 a", None),
]

SETS = [
    ("SADD s1 a b c", 3), ("SADD s1 a", 0), ("SADD s2 b c d", 3), ("SCARD s1", 3), ("SISMEMBER s1 a", 1), ("SMISMEMBER s1 a x", [1, 0]),
    ("SMEMBERS s1", {"a", "b", "c"}), ("SINTER s1 s2", {"b", "c"}), ("SUNION s1 s2", {"a", "b", "c", "d"}), ("SDIFF s1 s2", ["a"]), ("SINTERCARD 2 s1 s2", 2),
    ("SINTERSTORE s3 s1 s2", 2), ("SUNIONSTORE s4 s1 s2", 4), ("SDIFFSTORE s5 s1 s2", 1), ("SMOVE s1 s2 a", 1), ("SREM s2 a x", 1), ("SRANDMEMBER s4", bytes),
    ("SRANDMEMBER s4 -6", list), ("SPOP s5", "a"), ("SPOP s4 10", list), ("EXISTS s4 s5", 0), ("SSCAN s2 0", list), ("SADD ints 1 2 3", 3), ("OBJECT ENCODING ints", "intset"),
]

SORTED = [
    ("ZADD z 1 a 2 b 3 c", 3), ("ZADD z XX CH 5 a", 1), ("ZADD z NX 9 a", 0), ("ZADD z GT 4 a", 0), ("ZADD z INCR 1 a", "6"), ("ZSCORE z a", "6"), ("ZMSCORE z a x", ["6", None]),
    ("ZINCRBY z -5 a", "1"), ("ZCARD z", 3), ("ZCOUNT z 2 +inf", 2), ("ZRANK z c", 2), ("ZREVRANK z c", 0), ("ZRANK z x", None), ("ZRANGE z 0 -1", ["a", "b", "c"]),
    ("ZRANGE z 0 0 WITHSCORES", ["a", "1"]), ("ZRANGE z (1 3 BYSCORE", ["b", "c"]), ("ZRANGE z 3 1 BYSCORE REV LIMIT 0 1", ["c"]), ("ZREVRANGE z 0 1", ["c", "b"]),
    ("ZRANGEBYSCORE z 2 3 WITHSCORES", ["b", "2", "c", "3"]), ("ZREVRANGEBYSCORE z 3 (1", ["c", "b"]), ("ZADD lex 0 a 0 b 0 c", 3), ("ZRANGEBYLEX lex [a (c", ["a", "b"]),
    ("ZREVRANGEBYLEX lex + -", ["c", "b", "a"]), ("ZLEXCOUNT lex - +", 3), ("ZRANGESTORE dst z 0 1", 2), ("ZREMRANGEBYLEX lex [a [a", 1), ("ZREMRANGEBYRANK lex 0 0", 1),
    ("ZREMRANGEBYSCORE lex -inf +inf", 1), ("ZADD y 10 b 20 d", 2), ("ZUNION 2 z y WITHSCORES", ["a", "1", "c", "3", "b", "12", "d", "20"]), ("ZINTER 2 z y", ["b"]),
    ("ZDIFF 2 z y", ["a", "c"]), ("ZINTERCARD 2 z y", 1), ("ZUNIONSTORE u 2 z y WEIGHTS 2 1 AGGREGATE MAX", 4), ("ZSCORE u b", "10"), ("ZINTERSTORE i 2 z y", 1),
    ("ZDIFFSTORE d2 2 z y", 2), ("ZPOPMIN z", ["a", "1"]), ("ZPOPMAX z", ["c", "3"]), ("ZMPOP 1 z MIN", ["z", [["b", "2"]]]), ("BZPOPMIN y 1", ["y", "b", "10"]),
    ("BZPOPMAX none y 1", ["y", "d", "20"]), ("ZADD y 1 m", 1), ("BZMPOP 1 1 y MAX", ["y", [["m", "1"]]]), ("ZRANDMEMBER u", bytes), ("ZSCAN u 0", list), ("ZREM u a zz", 1),
    ("GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania", 2), ("GEODIST geo Palermo Catania km", "166.2742"), ("GEOHASH geo Palermo", ["sqc8b49rny0"]),
    ("GEOPOS geo none", [None]), ("GEOSEARCH geo FROMLONLAT 15 37 BYRADIUS 100 km", ["Catania"]), ("GEOSEARCHSTORE near geo FROMMEMBER Palermo BYRADIUS 1 km", 1),
]

STREAMS = [
    ("XADD x 1-1 f v", "1-1"), ("XADD x 1-2 f w", "1-2"), ("XADD x 1-1 f v", ERR), ("XADD x NOMKSTREAM 2-0 a 1 b 2", "2-0"), ("XLEN x", 3),
    ("XRANGE x - +", [["1-1", ["f", "v"]], ["1-2", ["f", "w"]], ["2-0", ["a", "1", "b", "2"]]]), ("XREVRANGE x + - COUNT 1", [["2-0", ["a", "1", "b", "2"]]]),
    ("XREAD COUNT 1 STREAMS x 1-1", [["x", [["1-2", ["f", "w"]]]]]), ("XREAD BLOCK 10 STREAMS x $", None), ("XGROUP CREATE x g 0", OK), ("XGROUP CREATE x g 0", "-BUSYGROUP"),
    ("XREADGROUP GROUP g me COUNT 2 STREAMS x >", [["x", [["1-1", ["f", "v"]], ["1-2", ["f", "w"]]]]]), ("XPENDING x g", [2, "1-1", "1-2", [["me", "2"]]]), ("XACK x g 1-1", 1),
    ("XCLAIM x g you 0 1-2 JUSTID", ["1-2"]), ("XAUTOCLAIM x g me 0 0 JUSTID", ["0-0", ["1-2"], []]), ("XGROUP CREATECONSUMER x g third", 1), ("XGROUP DELCONSUMER x g third", 0),
    ("XINFO GROUPS x", list), ("XINFO STREAM x", list), ("XINFO CONSUMERS x g", list), ("XDEL x 1-1", 1), ("XTRIM x MAXLEN 1", 1), ("XLEN x", 1), ("XSETID x 9-0", OK),
    ("XGROUP SETID x g $", OK), ("XGROUP DESTROY x g", 1), ("XADD x MAXLEN ~ 100 * f v", bytes),
]

SERVER = [
    ("PING", Status("PONG")), ("PING again", "again"), ("ECHO text", "text"), ("CONFIG GET maxmemory", ["maxmemory", "0"]), ("CONFIG SET maxmemory 1gb", OK),
    ("CONFIG GET maxmemory", ["maxmemory", "1073741824"]), ("CONFIG SET maxmemory 0", OK), ("CONFIG SET nonsense 1", ERR), ("CONFIG RESETSTAT", OK), ("CLIENT SETNAME me", OK),
    ("CLIENT GETNAME", "me"), ("CLIENT ID", int), ("CLIENT LIST", bytes), ("CLIENT INFO", bytes), ("CLIENT NO-EVICT on", OK), ("COMMAND COUNT", int),
    ("COMMAND DOCS get", list), ("INFO", bytes), ("INFO clients", bytes), ("TIME", list), ("LASTSAVE", int), ("ROLE", list), ("MEMORY USAGE h", int),
    ("SLOWLOG GET", list), ("LATENCY RESET", int), ("OBJECT HELP", list), ("DEBUG SLEEP 0", (OK, ERR)), ("SCRIPT FLUSH", OK), ("ACL WHOAMI", "default"), ("NOSUCHCOMMAND", ERR),
    ("GET", ERR), ("SELECT 99", ERR), ("SCAN 0 COUNT 1000", list), ("SORT ints DESC", ["3", "2", "1"]), ("SORT_RO ints", ["1", "2", "3"]),
]

ALL = {"strings": STRINGS, "keys": KEYS, "lists": LISTS, "hashes": HASHES, "sets": SETS, "sorted sets": SORTED, "streams": STREAMS, "server": SERVER}
