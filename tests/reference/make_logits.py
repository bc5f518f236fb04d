#!/usr/bin/env python3
"""Writes logits.bin: logits of the float64 numpy forward pass over the first 200 tokens of handbook.txt.

Little-endian:
  uint32   tokens, positions, stride, top, vocabulary
  int32    ids[tokens]                      no BOS, as the model's metadata says
  then `positions` records:
    uint32   position                       the logits after ids[0 .. position]
    float32  largest                        max |logit| over the whole vocabulary
    float32  logsumexp
    float32  sample[ceil(vocabulary / stride)]   logits of ids 0, stride, 2 stride ...
    int32    top_ids[top]                   the largest logits, descending
    float32  top_logits[top]

Usage: make_logits.py   (see requirements.txt; QUIRE_MODEL names another file)
"""
import struct

import numpy as np

from common import FIXTURES, model_path, open_llama, text_of
from llama_float64 import Model

TOKENS, STRIDE, TOP = 200, 64, 32
POSITIONS = [0, 1, 2, 7, 15, 16, 31, 63, 64, 100, 127, 128, 160, 199]


def write_positions(name, tokenizer, ids, positions, logits, stride):
    with open(FIXTURES / name, "wb") as out:
        out.write(struct.pack("<5I", len(ids), len(positions), stride, TOP, logits.shape[1]))
        out.write(np.asarray(ids, "<i4").tobytes())
        for position, row in zip(positions, logits):
            top = np.argsort(-row, kind="stable")[:TOP]
            largest = np.abs(row).max()
            logsumexp = row.max() + np.log(np.exp(row - row.max()).sum())
            out.write(struct.pack("<I2f", position, largest, logsumexp))
            out.write(row[::stride].astype("<f4").tobytes())
            out.write(top.astype("<i4").tobytes() + row[top].astype("<f4").tobytes())
            print(f"position {position}: top {tokenizer.detokenize([int(top[0])])!r}, largest {largest:.3f}")


def main():
    path = model_path()
    tokenizer = open_llama(path, vocab_only=True)
    ids = tokenizer.tokenize(text_of("handbook.txt"), add_bos=False, special=False)[:TOKENS]
    model = Model(path)
    logits = model.logits(model.hidden(ids)[POSITIONS])
    write_positions("logits.bin", tokenizer, ids, POSITIONS, logits, STRIDE)


if __name__ == "__main__":
    main()
