#!/usr/bin/env python3
"""Writes the fixtures of Gemma 3 270M: token ids, exact logits, and distributions of llama.cpp.

gemma_tokens.bin, little-endian: per item of tokenizer.txt, then per item of tokenizer.special.txt and GEMMA_SPECIAL
(these tokenised with parse_special): uint16 count, uint64 hash, FNV-1a over the ids as int32. The last texts are in
gemma_special.txt, each ended by byte 0x1E.

gemma_logits.bin: as logits.bin (make_logits.py), of the float64 pass of gemma_float64.py, over the first tokens of
handbook.txt behind a BOS, far enough to leave the window behind.

gemma_llama.bin, gemma_llama_f32.bin: as llama.bin and llama_f32.bin (make_llama.py), but ids are uint32 and there are
fewer top tokens. Two segments, each behind a BOS: the whole of handbook.txt, with contexts of more than three
windows, and letters.txt. llama.cpp keeps its KV in F32 here, to leave the rounding of activations as the only one.

Usage: make_gemma.py   (see requirements.txt; QUIRE_MODEL_GEMMA names the file)
"""
import os
import struct
import tempfile

import numpy as np

from common import FIXTURES, gemma_path, open_llama, text_of
from gemma_float64 import Model
from llama_float64 import log_softmax
from make_llama import SCALE, compare, write_f32_copy
from make_logits import write_positions
from make_tokenizer import END

TOP, CHUNK = 8, 64
TOKENS, POSITIONS = 1200, [0, 1, 2, 7, 31, 100, 255, 510, 511, 512, 513, 600, 1023, 1024, 1100, 1199]

SPECIAL = [
    "<bos><start_of_turn>user\nWho built the tower?<end_of_turn>\n<start_of_turn>model\n", "<start_of_turn>",
    "a<end_of_turn>b", " <eos> ", "<eos><eos>", "<start_of_turn", "<<end_of_turn>>", "5<unused6>'s", "<START_OF_TURN>",
    "  <start_of_turn>  \n\n<end_of_turn>\n\n", "日本<end_of_turn>語 🙂<bos>🙃", "<b>bold</b> and <i>it</i>", "[multimodal]x",
    "\n" * 40, " " * 40, "\t" * 40, " \n\n \t\t  x", "▁▁ literal ▁ markers▁", "<0x0A> is no byte", "",
]


def fnv(ids):
    value = 14695981039346656037
    for byte in struct.pack(f"<{len(ids)}i", *ids):
        value = (value ^ byte) * 1099511628211 % (1 << 64)
    return value


def items_of(name):
    return (FIXTURES / name).read_bytes().split(END)[:-1]


def write_tokens(llama):
    (FIXTURES / "gemma_special.txt").write_bytes(b"".join(item.encode() + END for item in SPECIAL))
    total = 0
    with open(FIXTURES / "gemma_tokens.bin", "wb") as out:
        for name in ("tokenizer.txt", "tokenizer.special.txt", "gemma_special.txt"):
            for item in items_of(name):
                ids = llama.tokenize(item, add_bos=False, special=name != "tokenizer.txt") if item else []
                out.write(struct.pack("<HQ", len(ids), fnv(ids)))
                total += len(ids)
    print(f"{total} token ids", flush=True)


def segments_of(llama):
    return [llama.tokenize(text_of(name), add_bos=True, special=False) for name in ("handbook.txt", "letters.txt")]


def logs_of(llama, ids):
    """The distribution after each token, CHUNK rows at a time."""
    llama.reset()
    for start in range(0, len(ids), CHUNK):
        llama.eval(ids[start:start + CHUNK])
        rows = np.asarray(llama.scores[start:start + CHUNK][:len(ids) - start], np.float64)
        yield slice(start, start + len(rows)), log_softmax(rows)


def write_rows(out, logs):
    for row in logs:
        top = np.argpartition(-row, TOP)[:TOP]
        top = top[np.argsort(-row[top], kind="stable")]
        rest = max(1.0 - np.exp(row[top]).sum(), 0.0)
        fixed = np.minimum(np.rint(-SCALE * row[top]), 65535)
        out.write(struct.pack("<f", rest) + top.astype("<u4").tobytes() + fixed.astype("<u2").tobytes())


def run(path, name, model, hidden):
    llama = open_llama(path, n_ctx=2304, n_batch=CHUNK, n_threads=2, logits_all=True, type_k=0, type_v=0, swa_full=True)
    results = []
    with open(FIXTURES / name, "wb") as out:
        segments = segments_of(llama)
        exact = name.endswith("_f32.bin")
        if not exact:
            out.write(struct.pack("<3I", len(segments), TOP, llama.n_vocab()))
        for index, ids in enumerate(segments):
            if index not in hidden:
                hidden[index] = model.hidden(ids)
            if not exact:
                out.write(struct.pack("<I", len(ids)) + np.asarray(ids, "<u4").tobytes())
            for rows, logs in logs_of(llama, ids):
                if exact:
                    fixed = np.minimum(np.rint(-SCALE * logs.max(-1)), 65535).astype(int)
                    for pair in zip(logs.argmax(-1), fixed):
                        out.write(struct.pack("<IH", *pair))
                else:
                    write_rows(out, logs)
                results.append(compare(logs, log_softmax(model.logits(hidden[index][rows])), TOP))
    same, kl, kl_joined = (np.concatenate(part) for part in zip(*results))
    print(f"{name}: float64 numpy against llama.cpp over {len(same)} positions: equal top-1 {same.mean():.2%}, "
          f"mean KL {kl.mean():.6f} (joined outcomes: {kl_joined.mean():.6f}), largest KL {kl.max():.4f}",
          flush=True)


def main():
    path = gemma_path()
    tokenizer = open_llama(path, vocab_only=True)
    write_tokens(tokenizer)
    model, hidden = Model(path), {}
    ids = segments_of(tokenizer)[0][:TOKENS]
    write_positions("gemma_logits.bin", tokenizer, ids, POSITIONS, model.logits(model.hidden(ids)[POSITIONS]), 512)
    run(path, "gemma_llama.bin", model, hidden)
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "f32.gguf")
        write_f32_copy(path, copy, "gemma3")
        run(copy, "gemma_llama_f32.bin", model, hidden)


if __name__ == "__main__":
    main()
