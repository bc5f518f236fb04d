#!/usr/bin/env python3
"""What one would use from PyTorch instead of Quire's kernels, on the shapes of quire-bench's rows.

    bench/peers/peers.py [--device cuda|cpu] [--json FILE] [--short]

index_copy_ and index_select for appends, copies and pieces; scaled_dot_product_attention over contiguous K and V,
FlexAttention and FlashInfer over a page table for decode attention; a bf16 matrix product for the arithmetic limit.
Each result is checked before it is timed. What is not installed is skipped with a reason; without PyTorch the program
exits with 77. On CUDA times are those of events around a graph's replay, with the L2 cache emptied; medians with least
and most. --short: a shape or two of each kind, small.
"""
import argparse
import datetime
import json
import math
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    print(f"no PyTorch: {error}")
    sys.exit(77)

LAYERS, KV_HEADS, QUERY_HEADS, HEAD_DIM, BLOCK_TOKENS = 32, 8, 32, 128, 16
FLEX_BATCHES = {(1, 16384), (64, 4096)}  # it is compiled for each shape, which takes its time
ENOUGH = 512 << 20  # bytes that a body should go round, so that no cache holds them


class Timer:
    """Seconds of one call: `calls` are made in turn, so that each finds other data."""

    def __init__(self, device, short):
        self.cuda = device == "cuda"
        self.runs, self.seconds = (3, 1.0) if short else (15, 1.0)
        if self.cuda:
            l2 = torch.cuda.get_device_properties(0).L2_cache_size
            self.flush = torch.zeros(2 * l2 // 4, dtype=torch.int32, device="cuda")

    def __call__(self, calls):
        return self.on_cuda(calls) if self.cuda else self.on_cpu(calls)

    def on_cpu(self, calls):
        def once():
            begin = time.perf_counter()
            for call in calls:
                call()
            return (time.perf_counter() - begin) / len(calls)
        once()
        return self.rounds(once)

    def rounds(self, once):
        times, end = [], time.perf_counter() + self.seconds
        while len(times) < 3 or (len(times) < self.runs and time.perf_counter() < end):
            times.append(once())
        return times

    def record(self, calls):
        """The calls as a graph where they can be recorded, else as they are."""
        def plain():
            for call in calls:
                call()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            plain()
            plain()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                plain()
            return graph.replay
        except RuntimeError:
            torch.cuda.synchronize()
            return plain

    def on_cuda(self, calls):
        replay = self.record(calls)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

        def once():
            replay()  # while it runs the CPU enqueues the rest
            self.flush.sum()
            begin.record()
            replay()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) * 1e-3 / len(calls)
        once()
        return self.rounds(once)


class Report:
    def __init__(self, device, path=None):
        self.device, self.path, self.figures, self.skipped = device, path, [], []

    def add(self, peer, name, size, unit, amount, times):
        """`amount` of the unit's numerator in one call."""
        figure = {"peer": peer, "name": name, "size": size, "unit": unit,
                  "value": {"median": amount / statistics.median(times), "least": amount / max(times),
                            "most": amount / min(times), "runs": len(times)},
                  "us_a_launch": {"median": statistics.median(times) * 1e6, "least": min(times) * 1e6,
                                  "most": max(times) * 1e6, "runs": len(times)}}
        self.figures.append(figure)
        value = figure["value"]
        print(f"{name:<30} {size:<22} {unit:<8} {value['median']:10.4g} ({value['least']:.4g}..{value['most']:.4g})"
              f"  {figure['us_a_launch']['median']:10.4g} us a launch  {peer}", flush=True)
        self.write()

    def skip(self, peer, why):
        self.skipped.append({"peer": peer, "why": why})
        print(f"skipped: {peer}: {why}", flush=True)
        self.write()

    def write(self):
        """After every row: a run that is cut off has written what it measured."""
        if self.path is None:
            return
        name = torch.cuda.get_device_name(0) if self.device == "cuda" else "cpu"
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump({"program": "peers", "date": datetime.datetime.now(datetime.timezone.utc).strftime("%FT%TZ"),
                       "settings": {"device": name, "torch": torch.__version__,
                                    "model": f"{KV_HEADS} kv heads, {QUERY_HEADS} query heads, {HEAD_DIM} elements"},
                       "figures": self.figures, "skipped": self.skipped}, file, indent=1)
            file.write("\n")


def noise(device, *shape, dtype=torch.bfloat16):
    return torch.rand(shape, device=device, dtype=torch.float32).mul_(2).sub_(1).to(dtype)


def must(right, what):
    if not right:
        raise RuntimeError(f"the result of {what} is wrong")


# ---- moving bytes ----------------------------------------------------------------------------------------------------

def append(report, timer, device, name, size, tokens):
    """New K and V of `tokens` tokens into random slots of a pool for each layer."""
    width, slots = KV_HEADS * HEAD_DIM, max(4 * tokens, 4096)
    layers = max(1, min(LAYERS, ENOUGH // (4 * slots * width)))
    pools = [torch.zeros(2, slots, width, dtype=torch.bfloat16, device=device) for _ in range(layers)]
    new = noise(device, 2, tokens, width)
    where = torch.randperm(slots, device=device)[:tokens]

    def call(pool):
        pool[0].index_copy_(0, where, new[0])
        pool[1].index_copy_(0, where, new[1])
    call(pools[0])
    must(torch.equal(pools[0][:, where], new), "index_copy_")
    times = timer([lambda pool=pool: call(pool) for pool in pools])
    report.add("index_copy_", name, size, "GB/s", 2 * 2 * tokens * width * 2 * 1e-9, times)


def pieces(report, timer, device, count, piece):
    """`count` pieces from random places side by side, and back."""
    arena, staging = noise(device, count, piece // 2), torch.empty(count, piece // 2, dtype=torch.bfloat16,
                                                                   device=device)
    where = torch.randperm(count, device=device)
    size = f"pieces of {piece / 1024:.1f} KiB"
    torch.index_select(arena, 0, where, out=staging)
    must(torch.equal(staging, arena[where]), "index_select")
    times = timer([lambda: torch.index_select(arena, 0, where, out=staging)])
    report.add("index_select", "gather", size, "GB/s", 2 * count * piece * 1e-9, times)
    times = timer([lambda: arena.index_copy_(0, where, staging)])
    report.add("index_copy_", "scatter", size, "GB/s", 2 * count * piece * 1e-9, times)


def block_copy(report, timer, device, block, at_once, total):
    """Blocks of an arena to other blocks of it: a select and a copy, which moves everything twice."""
    half = total // block
    arena = noise(device, 2 * half, block // 2)
    order = torch.randperm(half, device=device) + half
    sources = torch.arange(half, device=device)
    parts = [(order[i:i + at_once], sources[i:i + at_once]) for i in range(0, half, at_once)]

    def call(part):
        arena.index_copy_(0, part[0], arena.index_select(0, part[1]))
    call(parts[0])
    must(torch.equal(arena[parts[0][0]], arena[parts[0][1]]), "a copy of blocks")
    times = timer([lambda part=part: call(part) for part in parts])
    report.add("index_select, index_copy_", "block copy", f"{at_once} x {block / (1 << 20):.2f} MiB", "GB/s",
               2 * at_once * block * 1e-9, times)


# ---- attention -------------------------------------------------------------------------------------------------------

class Decode:
    """A batch with its K and V in pages of PAGE tokens at random places, and contiguous; `layers` of them."""

    def __init__(self, device, rows, context, page, query_heads=QUERY_HEADS, kv_heads=KV_HEADS):
        self.rows, self.context, self.page = rows, context, page
        self.query_heads, self.kv_heads = query_heads, kv_heads
        self.bytes = 2 * rows * context * kv_heads * HEAD_DIM * 2
        self.layers = max(1, min(LAYERS, ENOUGH // self.bytes))
        self.q = noise(device, rows, query_heads, 1, HEAD_DIM)
        self.k = [noise(device, rows, kv_heads, context, HEAD_DIM) for _ in range(self.layers)]
        self.v = [noise(device, rows, kv_heads, context, HEAD_DIM) for _ in range(self.layers)]
        self.size = f"{rows} x {context // 1024}k tokens" if context % 1024 == 0 else f"{rows} x {context} tokens"

    def expected(self, row):
        """The last layer's, in float64."""
        group = self.query_heads // self.kv_heads
        k, v = (x[-1][row].double().repeat_interleave(group, 0) for x in (self.k, self.v))
        scores = (self.q[row].double() @ k.transpose(-1, -2)) / math.sqrt(HEAD_DIM)
        return torch.softmax(scores, -1) @ v

    def check(self, out, what):
        for row in (0, self.rows - 1):
            error = (out[row].double() - self.expected(row)).abs().max().item()
            must(error < 0.02, f"{what} over {self.size} (error {error:.3g})")

    def paged(self):
        """Per layer K and V as [page][token][kv head][element] in a random order, and the order."""
        pages = self.context // self.page
        order = torch.randperm(self.rows * pages, device=self.q.device)
        def spread(x):
            in_order = x.transpose(1, 2).reshape(self.rows * pages, self.page, self.kv_heads, HEAD_DIM)
            places = torch.empty_like(in_order)
            places[order] = in_order
            return places
        return [(spread(k), spread(v)) for k, v in zip(self.k, self.v)], order.view(self.rows, pages)


def sdpa(report, timer, decode, name):
    def call(layer):
        return F.scaled_dot_product_attention(decode.q, decode.k[layer], decode.v[layer], enable_gqa=True)
    decode.check(call(decode.layers - 1), "scaled_dot_product_attention")
    times = timer([lambda layer=layer: call(layer) for layer in range(decode.layers)])
    report.add("scaled_dot_product_attention, contiguous", name, decode.size, "GB/s", decode.bytes * 1e-9, times)


def gathered_sdpa(report, timer, decode, name):
    """Over pages, without a kernel for them: gather, then attend."""
    layers, order = decode.paged()

    def call(layer):
        k, v = (x.index_select(0, order.view(-1)).view(decode.rows, decode.context, decode.kv_heads, HEAD_DIM)
                .transpose(1, 2) for x in layers[layer])
        return F.scaled_dot_product_attention(decode.q, k, v, enable_gqa=True)
    decode.check(call(decode.layers - 1), "attention over gathered pages")
    times = timer([lambda layer=layer: call(layer) for layer in range(decode.layers)])
    report.add("index_select, scaled_dot_product_attention", name, decode.size, "GB/s", decode.bytes * 1e-9, times)


def flex(report, timer, decode, name):
    """FlexAttention over physical pages: a sequence's blocks are the pages it owns."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention
    layers, order = decode.paged()
    pages, device = order.numel(), decode.q.device
    owner = torch.empty(pages, dtype=torch.int32, device=device)
    owner[order.view(-1)] = torch.arange(decode.rows, device=device, dtype=torch.int32).repeat_interleave(
        order.shape[1])

    def mine(b, h, q_index, kv_index):
        return owner[kv_index // decode.page] == b
    counts = torch.full((decode.rows, 1, 1), order.shape[1], dtype=torch.int32, device=device)
    indices = torch.zeros(decode.rows, 1, 1, pages, dtype=torch.int32, device=device)
    indices[:, 0, 0, :order.shape[1]] = order.to(torch.int32)
    mask = BlockMask.from_kv_blocks(torch.zeros_like(counts), torch.zeros_like(indices), counts, indices,
                                    BLOCK_SIZE=(128, decode.page), mask_mod=mine, seq_lengths=(1, pages * decode.page))
    physical = [tuple(x.reshape(1, pages * decode.page, decode.kv_heads, HEAD_DIM).transpose(1, 2) for x in kv)
                for kv in layers]
    compiled = torch.compile(flex_attention, dynamic=False)

    def call(layer):
        return compiled(decode.q, *physical[layer], block_mask=mask, enable_gqa=True)
    decode.check(call(decode.layers - 1), "FlexAttention")
    times = timer([lambda layer=layer: call(layer) for layer in range(decode.layers)])
    report.add(f"FlexAttention, pages of {decode.page}", name, decode.size, "GB/s", decode.bytes * 1e-9, times)


def flashinfer_decode(report, timer, decode, name):
    import flashinfer
    layers, order = decode.paged()
    device = decode.q.device
    work = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(work, "NHD", use_tensor_cores=True)
    starts = torch.arange(decode.rows + 1, dtype=torch.int32, device=device) * order.shape[1]
    last = torch.full((decode.rows,), decode.page, dtype=torch.int32, device=device)
    wrapper.plan(starts, order.reshape(-1).to(torch.int32), last, decode.query_heads, decode.kv_heads, HEAD_DIM,
                 decode.page, q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16)
    q = decode.q.squeeze(2)

    def call(layer):
        return wrapper.run(q, layers[layer])
    decode.check(call(decode.layers - 1).unsqueeze(2), "FlashInfer")
    times = timer([lambda layer=layer: call(layer) for layer in range(decode.layers)])
    report.add(f"FlashInfer {flashinfer.__version__}, pages of {decode.page}", name, decode.size, "GB/s",
               decode.bytes * 1e-9, times)


def prefill(report, timer, device, new, cached):
    """Causal attention of new tokens over a cached prefix, contiguous; in TFLOP/s."""
    from torch.nn.attention.bias import causal_lower_right
    total = new + cached
    q = noise(device, 1, QUERY_HEADS, new, HEAD_DIM)
    k, v = (noise(device, 1, QUERY_HEADS, total, HEAD_DIM) for _ in range(2))
    mask = causal_lower_right(new, total)

    def call():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    last = torch.softmax(q[0, 0, -1].double() @ k[0, 0].double().T / math.sqrt(HEAD_DIM), -1) @ v[0, 0].double()
    must((call()[0, 0, -1].double() - last).abs().max().item() < 0.02, "causal attention")
    size = f"{new // 1024}k after {cached // 1024}k tokens"
    report.add("scaled_dot_product_attention, contiguous", "prefill attention", size, "TFLOP/s",
               4 * QUERY_HEADS * HEAD_DIM * (new * cached + new * (new + 1) / 2) * 1e-12, timer([call]))


def product(report, timer, device, side):
    a, b = noise(device, side, side), noise(device, side, side)
    report.add("matmul", "bf16 matrix product", f"{side} x {side} x {side}", "TFLOP/s", 2 * side ** 3 * 1e-12,
               timer([lambda: a @ b]))


def attempt(report, peer, function, *arguments):
    """A peer that is missing, or does not run here, is a note and no failure."""
    try:
        function(*arguments)
    except ImportError as error:
        report.skip(peer, f"not installed ({error})")
    except Exception as error:  # pylint: disable=broad-except
        report.skip(peer, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200])
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def attention(report, timer, device, batches):
    for rows, context, heads, kv_heads, name in batches:
        try:
            decode = Decode(device, rows, context, 128, heads, kv_heads)
        except RuntimeError as error:
            report.skip(f"{name}, {rows} x {context}", str(error).splitlines()[0])
            continue
        attempt(report, "scaled_dot_product_attention", sdpa, report, timer, decode, name)
        attempt(report, "index_select, scaled_dot_product_attention", gathered_sdpa, report, timer, decode, name)
        if device == "cuda":
            if (rows, context) in FLEX_BATCHES:
                attempt(report, "FlexAttention", flex, report, timer, decode, name)
            decode.page = BLOCK_TOKENS
            attempt(report, "FlashInfer", flashinfer_decode, report, timer, decode, name)
        decode = None
    if device != "cuda":
        report.skip("FlexAttention, FlashInfer", "only compared on CUDA")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=lambda text: text.split(":")[0], choices=("cuda", "cpu"),
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json")
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    device, short = given.device, given.short
    if device == "cuda" and not torch.cuda.is_available():
        print(f"PyTorch {torch.__version__} sees no CUDA device")
        sys.exit(77)
    torch.manual_seed(1)
    report, timer = Report(device, given.json), Timer(device, short)
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name(0) if device == 'cuda' else 'cpu'}")

    for tokens in (16,) if short else (16, 64, 256):
        attempt(report, "index_copy_", append, report, timer, device, "append, decode", f"{tokens} x 1 token", tokens)
    for tokens in (2048,) if short else (2048, 8192):
        attempt(report, "index_copy_", append, report, timer, device, "append, prefill", f"{tokens // 1024}k tokens",
                tokens)
    total = (16 if short else 128) << 20
    for piece in (512, 4 << 10, 64 << 10):
        attempt(report, "index_select", pieces, report, timer, device, total // piece, piece)
    for at_once in (1, 8) if short else (1, 8, 64):
        attempt(report, "index_copy_", block_copy, report, timer, device, 2 << 20, at_once, total)
    if device == "cpu":
        batches = [(1, 1024), (8, 512)] if short else [(1, 1024), (1, 4096), (8, 512), (16, 1024)]
        batches = [(*batch, QUERY_HEADS, KV_HEADS, "decode attention") for batch in batches]
    else:
        batches = [(1, 16384), (64, 4096)] if short else [(64, 4096), (1, 16384), (1, 131072), (1, 4096), (64, 1024)]
        batches = [(*batch, QUERY_HEADS, KV_HEADS, "decode attention") for batch in batches]
        batches += [(64, 4096, 64, 8, "decode attention, 8:1"), (1, 16384, 32, 4, "decode attention, 4 kv heads")]
    if device == "cuda":
        attempt(report, "scaled_dot_product_attention", prefill, report, timer, device, 8192, 32768)
    attention(report, timer, device, batches)
    attempt(report, "matmul", product, report, timer, device, 8192 if device == "cuda" else 512)
    print(f"{len(report.figures)} rows, {len(report.skipped)} skipped")


main()
