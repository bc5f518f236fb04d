#!/usr/bin/env python3
"""Writes dequant.bin: random blocks of every tensor type and their values as the PyPI package `gguf` has them.

Records until the end of the file, little-endian: uint32 type, bytes, elements; the bytes; float32[elements].

Usage: make_dequant.py   (see requirements.txt)
"""
import struct

import gguf
import numpy as np

from common import FIXTURES

SEED, BLOCKS = 20240614, 4
# By type: where in a block its half floats are.
TYPES = {"F16": [0], "BF16": [], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
         "Q4_K": [0, 2], "Q6_K": [208]}


def main():
    random = np.random.default_rng(SEED)
    with open(FIXTURES / "dequant.bin", "wb") as out:
        for name, halves in TYPES.items():
            kind = gguf.GGMLQuantizationType[name]
            size = gguf.GGML_QUANT_SIZES[kind][1]
            data = random.integers(0, 256, (BLOCKS, size), np.uint8)
            for at in halves:
                data[:, at:at + 2] = random.normal(0, 0.1, BLOCKS).astype("<f2").view(np.uint8).reshape(-1, 2)
            if name == "BF16":
                data[:, 1] &= 0xBF
            values = gguf.quants.dequantize(data.reshape(1, -1), kind).astype("<f4").reshape(-1)
            out.write(struct.pack("<3I", kind, data.size, values.size) + data.tobytes() + values.tobytes())
    print(f"{len(TYPES)} types, seed {SEED}")


if __name__ == "__main__":
    main()
