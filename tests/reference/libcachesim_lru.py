#!/usr/bin/env python3
"""LRU of quire-replay against libCacheSim's, over the same trace.

    tests/reference/libcachesim_lru.py QUIRE_REPLAY TRACE.jsonl [PERCENT...]

A piece of a prompt is an object of size 1. For each request libCacheSim is asked, without touching anything, how long the
resident prefix is; then the found pieces are touched, and all pieces accessed from the last to the first, so that the head
is the most recent. That must be what quire-replay --pieces finds, to the last piece.

For comparison the flattened trace, whatever is resident counting as a hit, goes through libCacheSim as it is, in the same
order. It differs a little: there a piece may be found whose prompt before it is not, and a request's own tail pushes its
head out.

Needs the package libcachesim (pip); without it the script says so and exits with 77.
"""
import json
import subprocess
import sys

try:
    import libcachesim
except ImportError:
    print("libcachesim is not installed (pip install libcachesim)")
    sys.exit(77)


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)["hash_ids"] for line in file if line.strip()]


def request(piece):
    return libcachesim.Request(obj_id=piece, obj_size=1, op=libcachesim.ReqOp.OP_GET)


def prefix_hits(prompts, capacity):
    cache = libcachesim.LRU(capacity)
    hits = 0
    for prompt in prompts:
        accesses = [request(piece) for piece in prompt]
        found = 0
        while found < len(accesses) and cache.find(accesses[found], False) is not None:
            found += 1
        hits += found
        for access in accesses[:found]:
            cache.get(access)
        for access in reversed(accesses):
            cache.get(access)
    return hits


def flat_hits(prompts, capacity):
    cache = libcachesim.LRU(capacity)
    return sum(cache.get(request(piece)) for prompt in prompts for piece in reversed(prompt))


def replay_runs(program, path, capacities):
    sizes = ",".join(f"{capacity}blk" for capacity in capacities)
    report = subprocess.run([program, path, "--pieces", "--policy", "lru", "--json", "--device", sizes], check=True,
                            stdout=subprocess.PIPE)
    return {run["device_blocks"]: run for run in json.loads(report.stdout)["runs"] if run["policy"] == "lru"}


def main():
    program, path = sys.argv[1:3]
    percents = [float(text) for text in sys.argv[3:]] or [1, 2, 5, 10, 20, 50]
    prompts = read(path)
    pieces = sum(len(prompt) for prompt in prompts)
    different = len({piece for prompt in prompts for piece in prompt})
    longest = max(len(prompt) for prompt in prompts)
    capacities = sorted({max(int(different * percent / 100), longest) for percent in percents})
    runs = replay_runs(program, path, capacities)
    apart = 0
    print(f"libCacheSim {libcachesim.__version__}, {len(prompts)} requests, {pieces} pieces, {different} different")
    print("  capacity   quire-replay   libCacheSim   flattened")
    for capacity in capacities:
        ours, theirs = runs[capacity]["saved_tokens"], prefix_hits(prompts, capacity)
        flat = flat_hits(prompts, capacity)
        apart += ours != theirs
        print(f"{capacity:10d} {100 * ours / pieces:13.3f}% {100 * theirs / pieces:12.3f}% {100 * flat / pieces:10.3f}%")
    if apart:
        print(f"{apart} capacities differ")
    return 1 if apart else 0


sys.exit(main())
