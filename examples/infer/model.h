/* model.h: a Llama-family model, from a GGUF file into a backend's memory.
 *
 * Errors: see error.h. A model is immutable after open.
 */
#ifndef INFER_MODEL_H
#define INFER_MODEL_H

#include "backend.h"
#include "gguf.h"

typedef struct model_config {
    uint32_t layers, width, ffn_width, vocabulary;
    uint32_t heads, kv_heads, head_dim;
    uint32_t context; /* positions that the rotary table covers: the longest sequence */
    float epsilon, rope_base;
} model_config;

typedef struct model_layer {
    float *attention_gain, *ffn_gain;
    matrix *qkv;     /* rows: query heads, key heads, value heads */
    matrix *output;
    matrix *gate_up; /* rows: gate, then up */
    matrix *down;
} model_layer;

typedef struct model {
    backend *backend;
    model_config config;
    matrix *embedding;
    matrix *head;    /* the embedding itself where the two are tied */
    float *final_gain;
    float *rope_table; /* [context][head_dim]: cosine and sine of each pair */
    model_layer *layer;
} model;

/* Fails when the architecture is not "llama", a tensor is missing, unknown or of the wrong shape, or memory runs out.
 * `context` 0: as the model was trained; no longer than that. The backend must outlive the model. */
int model_open(model **out, const gguf_file *file, backend *backend, uint32_t context, infer_error *error);
void model_close(model *model); /* NULL is allowed */

#endif
