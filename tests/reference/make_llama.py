#!/usr/bin/env python3
"""Writes llama.bin: teacher-forced next-token distributions of llama.cpp over the texts of the example.

The texts are read as three separate segments, each from an empty context: the two halves of handbook.txt (by
tokens) and letters.txt; 2,680 positions, contexts up to 1,018 tokens, no BOS. Little-endian:
  uint32   segments, top, vocabulary
  per segment:
    uint32   tokens
    uint16   ids[tokens]
    then `tokens` records, each the distribution after ids[0 .. i]:
      float32  rest            probability of all tokens but the top ones
      uint16   top_ids[top]    descending
      uint16   top_logs[top]   -2048 * natural logarithm of the probability, rounded, at most 65535

KL(llama.cpp || other) is to be computed over top + 1 outcomes, the top tokens and the rest as one, after
scaling the stored probabilities to a sum of 1. Joining outcomes can only lower a KL; this script prints
by how much, for the float64 pass.

llama.cpp multiplies quantised weights with activations that it rounds to 8 bits; that is most of any
difference. So it also reads a copy of the file whose weights are the same numbers stored as F32, where it rounds
nothing, and writes llama_f32.bin: per position, in the same order, uint16 top id and uint16 top log as above.

Usage: make_llama.py   (see requirements.txt; QUIRE_MODEL names another file)
"""
import os
import struct
import tempfile

import gguf
import numpy as np

from common import FIXTURES, model_path, open_llama, text_of
from llama_float64 import Model, log_softmax

TOP, SCALE = 32, 2048


def segments_of(llama):
    book, letters = (llama.tokenize(text_of(name), add_bos=False, special=False)
                     for name in ("handbook.txt", "letters.txt"))
    half = len(book) // 2
    return [book[:half], book[half:], letters]


def llama_logs(llama, ids):
    llama.reset()
    llama.eval(ids)
    return log_softmax(np.asarray(llama.scores[:len(ids)], np.float64))


def write_segment(out, ids, logs):
    out.write(struct.pack("<I", len(ids)) + np.asarray(ids, "<u2").tobytes())
    for row in logs:
        top = np.argsort(-row, kind="stable")[:TOP]
        rest = max(1.0 - np.exp(row[top]).sum(), 0.0)
        fixed = np.minimum(np.rint(-SCALE * row[top]), 65535)
        out.write(struct.pack("<f", rest) + top.astype("<u2").tobytes() + fixed.astype("<u2").tobytes())


def joined(logs, top):
    probabilities = np.exp(np.take_along_axis(logs, top, axis=-1))
    rest = np.maximum(1 - probabilities.sum(axis=-1, keepdims=True), 1e-12)
    return np.concatenate([probabilities, rest], axis=-1)


def compare(llama, other, count=TOP):
    """Top-1 agreement, full KL and KL over the joined outcomes, one value a position."""
    top = np.argsort(-llama, axis=-1, kind="stable")[:, :count]
    p, q = joined(llama, top), joined(other, top)
    return (llama.argmax(-1) == other.argmax(-1), (np.exp(llama) * (llama - other)).sum(-1),
            (p * np.log(p / q)).sum(-1))


def write_f32_copy(source, target, architecture="llama"):
    """The same weights, dequantised by the package `gguf`."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = int(gguf.LlamaFileType.ALL_F32) if field.name == "general.file_type" else field.contents()
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run(path, name, model, hidden):
    """Writes llama.bin or llama_f32.bin from the model file at `path`, and prints how the float64 pass compares."""
    llama = open_llama(path, n_ctx=1088, n_batch=512, n_threads=2, logits_all=True)
    results = []
    with open(FIXTURES / name, "wb") as out:
        segments = segments_of(llama)
        if name == "llama.bin":
            out.write(struct.pack("<3I", len(segments), TOP, llama.n_vocab()))
        for index, ids in enumerate(segments):
            logs = llama_logs(llama, ids)
            if name == "llama.bin":
                write_segment(out, ids, logs)
            else:
                top = logs.argmax(-1)
                fixed = np.minimum(np.rint(-SCALE * logs.max(-1)), 65535)
                out.write(np.stack([top, fixed], axis=-1).astype("<u2").tobytes())
            if index not in hidden:
                hidden[index] = model.hidden(ids)
            for start in range(0, len(ids), 128):
                rows = slice(start, start + 128)
                results.append(compare(logs[rows], log_softmax(model.logits(hidden[index][rows]))))
    same, kl, kl_joined = (np.concatenate(part) for part in zip(*results))
    print(f"{name}: float64 numpy against llama.cpp over {len(same)} positions: equal top-1 {same.mean():.2%}, "
          f"mean KL {kl.mean():.6f} (joined outcomes: {kl_joined.mean():.6f}), largest KL {kl.max():.4f}",
          flush=True)


def main():
    path = model_path()
    model, hidden = Model(path), {}
    run(path, "llama.bin", model, hidden)
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "f32.gguf")
        write_f32_copy(path, copy)
        run(copy, "llama_f32.bin", model, hidden)


if __name__ == "__main__":
    main()
