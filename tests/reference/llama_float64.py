"""A Llama-family forward pass in float64 numpy, over weights that the PyPI package `gguf` dequantises.

Written for checking, not for speed: one function a step, no cache, the whole text at once.
"""
import gguf
import numpy as np


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.tensors = {t.name: t for t in reader.tensors}

        def value(key):
            return reader.fields[f"llama.{key}"].contents()

        self.layers = value("block_count")
        self.heads = value("attention.head_count")
        self.kv_heads = value("attention.head_count_kv")
        self.epsilon = value("attention.layer_norm_rms_epsilon")
        self.rope_base = value("rope.freq_base")
        self.head_size = value("embedding_length") // self.heads
        assert value("rope.dimension_count") == self.head_size
        self.embedding = self.weight("token_embd.weight")
        self.output = self.weight("output.weight") if "output.weight" in self.tensors else self.embedding

    def weight(self, name):
        tensor = self.tensors[name]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)

    def norm(self, x, name):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.epsilon) * self.weight(name)

    def rotate(self, x):
        """RoPE on [position, head, dimension]. The GGUF converter reorders the rows of Q and K so that the
        two halves of a rotated pair are neighbours: pair i is dimensions 2i and 2i + 1."""
        positions, _, size = x.shape
        angles = np.outer(np.arange(positions), self.rope_base ** (-np.arange(0, size, 2) / size))[:, None, :]
        even, odd = x[..., 0::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., 0::2] = even * np.cos(angles) - odd * np.sin(angles)
        out[..., 1::2] = even * np.sin(angles) + odd * np.cos(angles)
        return out

    def attention(self, x, layer):
        n, prefix = len(x), f"blk.{layer}.attn_"
        q = self.rotate((x @ self.weight(prefix + "q.weight").T).reshape(n, self.heads, self.head_size))
        k = self.rotate((x @ self.weight(prefix + "k.weight").T).reshape(n, self.kv_heads, self.head_size))
        v = (x @ self.weight(prefix + "v.weight").T).reshape(n, self.kv_heads, self.head_size)
        group = self.heads // self.kv_heads
        out = np.empty_like(q)
        future = np.triu(np.ones((n, n), bool), 1)
        for head in range(self.heads):
            scores = q[:, head] @ k[:, head // group].T / np.sqrt(self.head_size)
            scores[future] = -np.inf
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            out[:, head] = weights / weights.sum(axis=-1, keepdims=True) @ v[:, head // group]
        return out.reshape(n, -1) @ self.weight(prefix + "output.weight").T

    def feed_forward(self, x, layer):
        prefix = f"blk.{layer}.ffn_"
        gate = x @ self.weight(prefix + "gate.weight").T
        up = x @ self.weight(prefix + "up.weight").T
        return gate / (1 + np.exp(-gate)) * up @ self.weight(prefix + "down.weight").T

    def hidden(self, ids):
        """What the output matrix is applied to: [position, embedding]."""
        x = self.embedding[np.asarray(ids)]
        for layer in range(self.layers):
            x = x + self.attention(self.norm(x, f"blk.{layer}.attn_norm.weight"), layer)
            x = x + self.feed_forward(self.norm(x, f"blk.{layer}.ffn_norm.weight"), layer)
        return self.norm(x, "output_norm.weight")

    def logits(self, hidden):
        return hidden @ self.output.T


def log_softmax(logits):
    top = logits.max(axis=-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
