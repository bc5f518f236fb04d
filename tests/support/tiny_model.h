/* tiny_model.h: a Llama or Gemma model of a few thousand random weights, as a GGUF file in memory, so that the whole engine can be
 * tested in milliseconds and without a download. */
#ifndef TEST_TINY_MODEL_H
#define TEST_TINY_MODEL_H

#include <stddef.h>
#include <stdint.h>

enum {
    TINY_VOCABULARY = 96,
    TINY_WIDTH = 48,
    TINY_HEADS = 6,
    TINY_KV_HEADS = 2,
    TINY_HEAD_DIM = 8,
    TINY_FFN = 80, /* no multiple of a panel, so that padding is met */
    TINY_LAYERS = 2,
    TINY_CONTEXT = 512,
    TINY_WINDOW = 16,        /* of the Gemma's first layer; the second sees everything */
    TINY_LOCAL_BASE = 500,   /* of the rotary embedding of that layer; else TINY_BASE */
    TINY_BASE = 10000
};

/* What to make wrong, or otherwise. */
typedef struct tiny_fault {
    const char *architecture; /* NULL: "llama" */
    const char *missing;      /* this tensor is left out */
    const char *misshapen;    /* this one has a row too few */
    const char *unknown;      /* a tensor of this name is added */
    int separate_head;        /* 1: with output.weight */
    int gemma;                /* 1: a Gemma 3 */
} tiny_fault;

/* The caller frees the bytes. `fault` NULL: a good file. The same seed gives the same bytes. */
uint8_t *tiny_model_bytes(uint64_t seed, const tiny_fault *fault, size_t *size);

#endif
