"""A Gemma 3 forward pass in float64 numpy, over weights that the PyPI package `gguf` dequantises.

Written for checking, not for speed: one function a step, no cache, the whole text at once. What is not a Llama's: the
embedding is scaled by the root of its width; queries and keys are normed head by head; what attention and the MLP
give is normed before it is added; the gate is a GELU (its tanh form); five of six layers see the last `window` tokens
only and turn by another base; pairs of the rotary embedding are dimensions i and i + size / 2.
"""
import gguf
import numpy as np

LOCAL_BASE, PATTERN = 10000.0, 6  # of the file's architecture, not in its metadata


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.tensors = {t.name: t for t in reader.tensors}

        def value(key):
            return reader.fields[f"gemma3.{key}"].contents()

        self.layers = value("block_count")
        self.heads = value("attention.head_count")
        self.kv_heads = value("attention.head_count_kv")
        self.epsilon = value("attention.layer_norm_rms_epsilon")
        self.rope_base = value("rope.freq_base")
        self.head_size = value("attention.key_length")
        self.window = value("attention.sliding_window")
        self.output = self.embedding = self.weight("token_embd.weight")

    def weight(self, name):
        tensor = self.tensors[name]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)

    def norm(self, x, name):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.epsilon) * self.weight(name)

    def rotate(self, x, base):
        positions, _, size = x.shape
        angles = np.outer(np.arange(positions), base ** (-np.arange(0, size, 2) / size))[:, None, :]
        low, high = x[..., :size // 2], x[..., size // 2:]
        return np.concatenate([low * np.cos(angles) - high * np.sin(angles),
                               low * np.sin(angles) + high * np.cos(angles)], axis=-1)

    def attention(self, x, layer):
        n, prefix = len(x), f"blk.{layer}.attn_"
        whole = layer % PATTERN == PATTERN - 1
        base = self.rope_base if whole else LOCAL_BASE

        def heads(name, count):
            return (x @ self.weight(f"{prefix}{name}.weight").T).reshape(n, count, self.head_size)

        q = self.rotate(self.norm(heads("q", self.heads), prefix + "q_norm.weight"), base)
        k = self.rotate(self.norm(heads("k", self.kv_heads), prefix + "k_norm.weight"), base)
        v = heads("v", self.kv_heads)
        group = self.heads // self.kv_heads
        out = np.empty_like(q)
        distance = np.arange(n)[:, None] - np.arange(n)[None, :]
        hidden = (distance < 0) | (not whole) & (distance >= self.window)
        for head in range(self.heads):
            scores = q[:, head] @ k[:, head // group].T / np.sqrt(self.head_size)
            scores[hidden] = -np.inf
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            out[:, head] = weights / weights.sum(axis=-1, keepdims=True) @ v[:, head // group]
        return out.reshape(n, -1) @ self.weight(prefix + "output.weight").T

    def feed_forward(self, x, layer):
        prefix = f"blk.{layer}.ffn_"
        gate = x @ self.weight(prefix + "gate.weight").T
        up = x @ self.weight(prefix + "up.weight").T
        gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate ** 3)))
        return gelu * up @ self.weight(prefix + "down.weight").T

    def hidden(self, ids):
        """What the output matrix is applied to: [position, embedding]."""
        x = self.embedding[np.asarray(ids)] * np.sqrt(self.embedding.shape[1])
        for layer in range(self.layers):
            added = self.attention(self.norm(x, f"blk.{layer}.attn_norm.weight"), layer)
            x = x + self.norm(added, f"blk.{layer}.post_attention_norm.weight")
            added = self.feed_forward(self.norm(x, f"blk.{layer}.ffn_norm.weight"), layer)
            x = x + self.norm(added, f"blk.{layer}.post_ffw_norm.weight")
        return self.norm(x, "output_norm.weight")

    def logits(self, hidden):
        return hidden @ self.output.T
