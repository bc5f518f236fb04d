#include "support/tiny_model.h"
#include "gguf_builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TENSORS = 64, ALIGNMENT = 32 };

typedef struct tensor {
    char name[64];
    uint64_t ne[2];
    uint32_t dimensions;
} tensor;

typedef struct plan {
    tensor tensors[MOST_TENSORS];
    size_t count;
    const tiny_fault *fault;
} plan;

static int is(const char *fault, const char *name)
{
    return fault && !strcmp(fault, name);
}

static void add(plan *p, const char *name, uint64_t rows, uint64_t columns)
{
    if (is(p->fault->missing, name)) return;
    if (is(p->fault->misshapen, name)) rows--;
    tensor *t = &p->tensors[p->count++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->ne[0] = columns;
    t->ne[1] = rows;
    t->dimensions = rows == 1 ? 1 : 2;
}

static void add_layer(plan *p, int layer)
{
    static const struct { const char *name; uint64_t rows, columns; } parts[] = {
        { "attn_norm", 1, TINY_WIDTH },
        { "ffn_norm", 1, TINY_WIDTH },
        { "attn_q", TINY_HEADS * TINY_HEAD_DIM, TINY_WIDTH },
        { "attn_k", TINY_KV_HEADS * TINY_HEAD_DIM, TINY_WIDTH },
        { "attn_v", TINY_KV_HEADS * TINY_HEAD_DIM, TINY_WIDTH },
        { "attn_output", TINY_WIDTH, TINY_HEADS * TINY_HEAD_DIM },
        { "ffn_gate", TINY_FFN, TINY_WIDTH },
        { "ffn_up", TINY_FFN, TINY_WIDTH },
        { "ffn_down", TINY_WIDTH, TINY_FFN },
        /* of a Gemma only */
        { "attn_q_norm", 1, TINY_HEAD_DIM },
        { "attn_k_norm", 1, TINY_HEAD_DIM },
        { "post_attention_norm", 1, TINY_WIDTH },
        { "post_ffw_norm", 1, TINY_WIDTH },
    };
    size_t count = sizeof parts / sizeof parts[0] - (p->fault->gemma ? 0 : 4);
    for (size_t i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, parts[i].name);
        add(p, name, parts[i].rows, parts[i].columns);
    }
}

/* A key under the architecture's name. */
static const char *key_of(const plan *p, const char *name)
{
    static char key[64];
    snprintf(key, sizeof key, "%s.%s", p->fault->gemma ? "gemma3" : "llama", name);
    return key;
}

static void write_header(gguf_builder *b, const plan *p)
{
    const char *architecture = p->fault->gemma ? "gemma3" : "llama";
    uint64_t offset = 0;
    build_header(b, p->count, p->fault->gemma ? 14 : 9);
    build_key_string(b, "general.architecture", p->fault->architecture ? p->fault->architecture : architecture);
    build_key_u32(b, key_of(p, "block_count"), TINY_LAYERS);
    build_key_u32(b, key_of(p, "embedding_length"), TINY_WIDTH);
    build_key_u32(b, key_of(p, "feed_forward_length"), TINY_FFN);
    build_key_u32(b, key_of(p, "context_length"), TINY_CONTEXT);
    build_key_u32(b, key_of(p, "attention.head_count"), TINY_HEADS);
    build_key_u32(b, key_of(p, "attention.head_count_kv"), TINY_KV_HEADS);
    build_key_float(b, key_of(p, "attention.layer_norm_rms_epsilon"), 1e-5f);
    build_key_float(b, key_of(p, "rope.freq_base"), TINY_BASE);
    if (p->fault->gemma) {
        build_key_u32(b, key_of(p, "attention.key_length"), TINY_HEAD_DIM);
        build_key_u32(b, key_of(p, "attention.value_length"), TINY_HEAD_DIM);
        build_key_u32(b, key_of(p, "attention.sliding_window"), TINY_WINDOW);
        build_key_u32(b, key_of(p, "attention.sliding_window_pattern"), 2);
        build_key_float(b, key_of(p, "rope.freq_base_swa"), TINY_LOCAL_BASE);
    }
    for (size_t i = 0; i < p->count; i++) {
        const tensor *t = &p->tensors[i];
        build_tensor(b, t->name, t->dimensions, t->ne, 0, offset);
        offset += (t->ne[0] * t->ne[1] * sizeof(float) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    build_padding(b, ALIGNMENT);
}

/* Uniform in (-1, 1), from SplitMix64. */
static float uniform(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (float)((double)((z ^ z >> 31) >> 11) * 0x1p-52 - 1.0);
}

uint8_t *tiny_model_bytes(uint64_t seed, const tiny_fault *fault, size_t *size)
{
    static const tiny_fault none = { 0 };
    plan p = { .fault = fault ? fault : &none };
    gguf_builder *b = malloc(sizeof *b);
    add(&p, "token_embd.weight", TINY_VOCABULARY, TINY_WIDTH);
    if (p.fault->separate_head) add(&p, "output.weight", TINY_VOCABULARY, TINY_WIDTH);
    add(&p, "output_norm.weight", 1, TINY_WIDTH);
    for (int i = 0; i < TINY_LAYERS; i++) add_layer(&p, i);
    if (p.fault->unknown) add(&p, p.fault->unknown, 1, TINY_WIDTH);
    write_header(b, &p);

    size_t total = b->size;
    for (size_t i = 0; i < p.count; i++)
        total += (p.tensors[i].ne[0] * p.tensors[i].ne[1] * sizeof(float) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    uint8_t *bytes = calloc(1, total), *to = bytes + b->size;
    memcpy(bytes, b->bytes, b->size);
    free(b);
    for (size_t i = 0; i < p.count; i++) {
        uint64_t elements = p.tensors[i].ne[0] * p.tensors[i].ne[1];
        for (uint64_t j = 0; j < elements; j++) {
            float value = uniform(&seed) * 0.4f;
            if (p.tensors[i].dimensions == 1) value = 1.0f + 0.2f * value;
            memcpy(to + j * sizeof value, &value, sizeof value);
        }
        to += (elements * sizeof(float) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    *size = total;
    return bytes;
}
