/* model.h: a Llama or Gemma 3 model, from a GGUF file into a backend's memory. What makes the two different is here as
 * numbers and as tensors that may be missing, so that one forward pass (forward.c) computes both.
 *
 * Errors: see error.h. A model is immutable after open.
 */
#ifndef INFER_MODEL_H
#define INFER_MODEL_H

#include "backend.h"
#include "gguf.h"

enum {
    MODEL_MOST_GROUPS = 2,
    MODEL_ROLLBACK = 64 /* tokens of a draft that a cache with windows can take back */
};

typedef struct model_config {
    uint32_t layers, width, ffn_width, vocabulary;
    uint32_t heads, kv_heads, head_dim;
    uint32_t context;      /* positions that the rotary tables cover: the longest sequence */
    float epsilon;
    float embedding_scale; /* of a token's row of the embedding */
    float query_scale;     /* of the scores */
    bool gelu;             /* the gate of the MLP: GELU in its tanh form, else SiLU */
} model_config;

/* Rotary tables: one a base. */
typedef enum model_rope { MODEL_ROPE_GLOBAL = 0, MODEL_ROPE_LOCAL = 1, MODEL_ROPES = 2 } model_rope;

typedef struct model_layer {
    uint32_t group, index; /* where the cache keeps the layer's K and V: group, and layer in it */
    uint32_t window;       /* tokens that attention sees, its own included; 0: all */
    model_rope rope;
    float *attention_gain, *ffn_gain;
    float *query_gain, *key_gain;                /* of each head, before it is turned; or NULL */
    float *attention_out_gain, *ffn_out_gain;    /* of what is added to the stream; or NULL */
    matrix *qkv;           /* rows: query heads, key heads, value heads */
    matrix *output;
    matrix *gate_up;       /* rows: gate, then up */
    matrix *down;
} model_layer;

typedef struct model {
    backend *backend;
    model_config config;
    matrix *embedding;
    matrix *head;    /* the embedding itself where the two are tied */
    float *final_gain;
    float *rope_table[MODEL_ROPES]; /* [context][head_dim]: cosine and sine of each pair; NULL: no layer uses it */
    model_layer *layer;
} model;

/* Fails when the architecture is not known, a tensor is missing, unknown or of the wrong shape, or memory runs out.
 * `context` 0: as the model was trained; no longer than that. The backend must outlive the model. */
int model_open(model **out, const gguf_file *file, backend *backend, uint32_t context, infer_error *error);
void model_close(model *model); /* NULL is allowed */

/* The groups of layers that a cache for this model is opened with, `dtype`, `scales` and `blocks` left to the caller. Returns
 * how many: layers with a window are a group of their own where others see everything. */
uint32_t model_groups(const model *model, quire_group groups[MODEL_MOST_GROUPS]);

#endif
