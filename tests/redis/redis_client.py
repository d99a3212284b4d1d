#!/usr/bin/env python3
"""The client half of the Redis test: one step per call, every reply checked.

  redis_client.py ADDRESS PORT STEP SCRATCH
"""
# SPDX-License-Identifier: BSD-3-Clause
import hashlib
import json
import os
import pathlib
import random
import signal
import sys
import threading
import time

import commands
from resp import Failure, Redis, pack

ADDRESS, PORT, STEP, SCRATCH = sys.argv[1], int(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4])


def connect():
    return Redis(ADDRESS, PORT)


def check(got, expected, what):
    if not matches(got, expected):
        raise AssertionError(f"{what}: got {got!r}, expected {expected!r}")


def matches(got, expected):
    if isinstance(expected, tuple):
        return any(matches(got, one) for one in expected)
    if isinstance(expected, type):
        return isinstance(got, expected)
    if isinstance(expected, str) and expected.startswith("-"):
        return isinstance(got, Failure) and str(got).startswith(expected[1:])
    if isinstance(expected, str):
        return got == expected.encode()
    if isinstance(expected, set):
        return isinstance(got, list) and len(got) == len(expected) and set(got) == {one.encode() for one in expected}
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(matches(g, e) for g, e in zip(got, expected))
    return got == expected and type(got) is type(expected)


def all_commands():
    redis = connect()
    redis("FLUSHALL")
    count = 0
    for group, rows in commands.ALL.items():
        for words, expected in rows:
            check(redis.ask(*words.split(" ")), expected, f"{group}: {words}")
            count += 1
    dump = redis("DUMP", "h")
    check(redis("RESTORE", "h2", 0, dump), commands.OK, "RESTORE")
    check(redis("HGETALL", "h2"), [one.decode() for one in redis("HGETALL", "h")], "what was restored")
    check(redis("EVAL", "return {KEYS[1], redis.call('INCRBY', KEYS[1], ARGV[1])}", 1, "lua", 7), ["lua", 7], "EVAL")
    digest = redis("SCRIPT", "LOAD", "return ARGV[1]")
    check(redis("EVALSHA", digest, 0, "again"), "again", "EVALSHA")
    check(redis("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function(k, a) return a[1] end)"), "lib", "FUNCTION LOAD")
    check(redis("FCALL", "f", 0, "called"), "called", "FCALL")
    redis("FLUSHALL")
    return f"{count + 6} commands"


def big_values():
    """100 MB there and back, with its hash; and many sizes around the limits of buffers and segments."""
    redis = connect()
    value = random.Random(1).randbytes(100 * 1000 * 1000)
    check(redis("SET", "big", value), commands.OK, "SET of 100 MB")
    check(redis("STRLEN", "big"), len(value), "STRLEN")
    got = redis("GET", "big")
    if hashlib.sha256(got).digest() != hashlib.sha256(value).digest():
        raise AssertionError("100 MB came back changed")
    check(redis("DEL", "big"), 1, "DEL")
    for size in (0, 1, 1447, 1448, 1449, 1460, 2920, 16383, 16384, 16385, 65535, 65536, 65537, 1 << 20, (1 << 22) + 1):
        part = value[:size]
        check(redis("SET", "size", part), commands.OK, f"SET of {size}")
        if redis("GET", "size") != part:
            raise AssertionError(f"a value of {size} bytes came back changed")
    redis("DEL", "size")
    return "100 MB and 15 sizes"


def pipelining():
    redis = connect()
    redis("DEL", "count")
    total = 10000
    out = b"".join(pack("INCR", "count") + pack("ECHO", f"n{i}") for i in range(total))
    writer = threading.Thread(target=redis.socket.sendall, args=(out,))
    writer.start()
    for i in range(total):
        check(redis.read(), i + 1, "INCR in a pipeline")
        check(redis.read(), f"n{i}", "ECHO in a pipeline")
    writer.join()
    # The same cut into odd parts.
    out = b"".join(pack("SET", f"key{i}", f"value{i}") for i in range(2000))
    chance, at = random.Random(2), 0
    while at < len(out):
        step = chance.choice((1, 2, 3, 7, 100, 1448, 5000))
        redis.socket.sendall(out[at:at + step])
        at += step
    for _ in range(2000):
        check(redis.read(), commands.OK, "SET in parts")
    check(redis("MGET", "key0", "key1999"), ["value0", "value1999"], "MGET")
    redis("FLUSHALL")
    return f"{2 * total + 2000} commands in pipelines"


def publish_subscribe():
    publisher, listeners = connect(), [connect() for _ in range(5)]
    for listener in listeners:
        check(listener("SUBSCRIBE", "news"), ["subscribe", "news", 1], "SUBSCRIBE")
        check(listener("PSUBSCRIBE", "n*"), ["psubscribe", "n*", 2], "PSUBSCRIBE")
    check(publisher("PUBSUB", "NUMSUB", "news"), ["news", 5], "NUMSUB")
    for i in range(200):
        check(publisher("PUBLISH", "news", f"item {i}"), 10, "PUBLISH")
    for listener in listeners:
        for i in range(200):
            check(listener.read(), ["message", "news", f"item {i}"], "a message")
            check(listener.read(), ["pmessage", "n*", "news", f"item {i}"], "a message by pattern")
        check(listener("UNSUBSCRIBE", "news"), ["unsubscribe", "news", 1], "UNSUBSCRIBE")
    check(publisher("SPUBLISH", "shard", "x"), 0, "SPUBLISH")
    return "2000 messages"


def blocking():
    waiter, pusher = connect(), connect()
    for i in range(50):
        waiter.send("BLPOP", "queue", 0)
        # The server has it when it counts a blocked client.
        while b"blocked_clients:1" not in pusher("INFO", "clients"):
            pass
        check(pusher("RPUSH", "queue", i), 1, "RPUSH")
        check(waiter.read(), ["queue", str(i)], "BLPOP")
    start = time.monotonic()
    check(waiter("BLPOP", "queue", "0.3"), None, "BLPOP without a pusher")
    took = time.monotonic() - start
    if not 0.29 <= took < 5:
        raise AssertionError(f"BLPOP with 0.3 s took {took:.3f} s")
    waiter.send("XREAD", "BLOCK", 0, "STREAMS", "stream", "$")
    while b"blocked_clients:1" not in pusher("INFO", "clients"):
        pass
    pusher("XADD", "stream", "5-5", "a", "b")
    check(waiter.read(), [["stream", [["5-5", ["a", "b"]]]]], "XREAD BLOCK")
    waiter.send("BLPOP", "queue", 0)
    while b"blocked_clients:1" not in pusher("INFO", "clients"):
        pass
    waiter.close()
    while b"blocked_clients:0" not in pusher("INFO", "clients"):
        pass
    pusher("FLUSHALL")
    return "50 wake-ups, a timeout, a waiter that leaves"


def transactions():
    redis, other = connect(), connect()
    check(redis("MULTI"), commands.OK, "MULTI")
    check(redis("SET", "t", 1), commands.QUEUED, "queued")
    check(redis("INCR", "t"), commands.QUEUED, "queued")
    check(other("EXISTS", "t"), 0, "not yet")
    check(redis("EXEC"), [commands.OK, 2], "EXEC")
    check(redis("WATCH", "t"), commands.OK, "WATCH")
    check(other("INCR", "t"), 3, "INCR by another")
    redis("MULTI")
    redis("SET", "t", 99)
    check(redis("EXEC"), None, "EXEC after a change")
    redis("MULTI")
    redis("SET", "t", 99)
    check(redis("DISCARD"), commands.OK, "DISCARD")
    check(redis("GET", "t"), "3", "GET")
    redis("MULTI")
    check(redis.ask("NOSUCH"), "-ERR", "a wrong command")
    check(redis.ask("EXEC"), "-EXECABORT", "EXEC after it")
    redis("FLUSHALL")
    return "MULTI, EXEC, WATCH, DISCARD"


def rewrite_counts(redis):
    info = dict(line.split(":", 1) for line in redis("INFO", "persistence").decode().split("\r\n") if ":" in line)
    return int(info["rdb_bgsave_in_progress"]), int(info["aof_rewrite_in_progress"]), info["rdb_last_bgsave_status"], info["aof_last_bgrewrite_status"]


def persistence_load():
    """BGSAVE and AOF rewrite while four connections write; what was acknowledged is written down for the check after the restart."""
    redis = connect()
    redis("CONFIG", "SET", "appendonly", "yes")
    base = b"".join(pack("SET", f"base{i}", f"{i}" * 50) for i in range(20000))
    writer = threading.Thread(target=redis.socket.sendall, args=(base,))
    writer.start()
    for _ in range(20000):
        check(redis.read(), commands.OK, "SET")
    writer.join()
    stop, counts, problems = threading.Event(), [0] * 4, []

    def write(index):
        try:
            mine = connect()
            while not stop.is_set():
                n = counts[index]
                check(mine("SET", f"w{index}:{n}", n * 7), commands.OK, "SET under load")
                check(mine("RPUSH", f"list{index}", n), n + 1, "RPUSH under load")
                counts[index] += 1
        except Exception as error:  # told by the main thread
            problems.append(f"writer {index}: {error!r}")

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            for command, field in (("BGSAVE", 0), ("BGREWRITEAOF", 1)):
                deadline = time.monotonic() + 60
                while any(rewrite_counts(redis)[:2]):
                    if time.monotonic() > deadline:
                        raise AssertionError(f"a child of the server does not end: {rewrite_counts(redis)}")
                redis(command)
                while rewrite_counts(redis)[field]:
                    if time.monotonic() > deadline:
                        raise AssertionError(f"{command} does not end: {rewrite_counts(redis)}")
                if rewrite_counts(redis)[2 + field] != "ok":
                    raise AssertionError(f"{command} failed: {rewrite_counts(redis)}")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if problems:
        raise AssertionError("; ".join(problems))
    (SCRATCH / "counts.json").write_text(json.dumps(counts))
    return f"3 BGSAVE and 3 rewrites under {sum(counts)} writes"


def persistence_verify():
    redis, counts = connect(), json.loads((SCRATCH / "counts.json").read_text())
    for i in range(0, 20000, 1000):
        got = redis("MGET", *[f"base{n}" for n in range(i, i + 1000)])
        check(got, [f"{n}" * 50 for n in range(i, i + 1000)], "base after the restart")
    for index, count in enumerate(counts):
        check(redis("LRANGE", f"list{index}", 0, -1), [str(n) for n in range(count)], f"list{index} after the restart")
        for i in range(0, count, 1000):
            part = range(i, min(count, i + 1000))
            check(redis("MGET", *[f"w{index}:{n}" for n in part]), [str(n * 7) for n in part], "writes after the restart")
    redis("CONFIG", "SET", "appendonly", "no")
    redis("FLUSHALL")
    return f"{20000 + 2 * sum(counts)} values after a restart"


def thousand():
    """1000 connections open at once, each with requests under way at the same time, in three rounds."""
    clients = [connect() for _ in range(1000)]
    for turn in range(3):
        for i, client in enumerate(clients):
            client.send("SET", f"k{i}", f"{turn}:{i}")
            client.send("GET", f"k{i}")
        for i, client in enumerate(clients):
            check(client.read(), commands.OK, f"SET of connection {i}")
            check(client.read(), f"{turn}:{i}", f"GET of connection {i}")
    if clients[0]("INFO", "clients").decode().split("connected_clients:")[1].split("\r\n")[0] != "1000":
        raise AssertionError("the server does not count 1000 clients")
    for client in clients[1:]:
        client.close()
    while b"connected_clients:1\r\n" not in clients[0]("INFO", "clients"):
        pass
    clients[0]("FLUSHALL")
    return "3 rounds over 1000 connections"


def killed_clients():
    """Clients die by SIGKILL in the middle of their traffic; the server lets go of them and serves the others."""
    chance, payload = random.Random(3), b"x" * 50000
    for turn in range(10):
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                mine, n = connect(), 0
                while True:
                    mine("SET", f"dying{turn}", payload)
                    mine("GET", f"dying{turn}")
                    n += 1
                    if n == 3:
                        os.write(writable, b"!")
            finally:
                os._exit(1)
        os.close(writable)
        if os.read(readable, 1) != b"!":
            raise AssertionError("the client that is to be killed did not get going")
        os.close(readable)
        for _ in range(chance.randrange(2000)):
            pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        redis = connect()
        check(redis("SET", "alive", turn), commands.OK, "SET after a client died")
        deadline = time.monotonic() + 20
        while b"connected_clients:1\r\n" not in redis("INFO", "clients"):
            if time.monotonic() > deadline:
                raise AssertionError(f"the server keeps the connection of a dead client: {redis('CLIENT', 'LIST')!r}")
        redis.close()
    return "10 clients killed"


def ping():
    redis = connect()
    check(redis("PING"), "PONG", "PING")
    check(redis("SET", "k", "v"), commands.OK, "SET")
    check(redis("BGSAVE"), bytes, "BGSAVE")
    check(redis("GET", "k"), "v", "GET")
    return "PING, SET, BGSAVE, GET"


STEPS = {
    "commands": all_commands, "big": big_values, "pipelining": pipelining, "pubsub": publish_subscribe, "blocking": blocking, "transactions": transactions,
    "persistence-load": persistence_load, "persistence-verify": persistence_verify, "thousand": thousand, "killed-clients": killed_clients, "ping": ping,
}

if __name__ == "__main__":
    print(STEPS[STEP]())
