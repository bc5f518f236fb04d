/* model_families.h: what differs from one architecture to the next, and what reads them all. For model*.c only. */
#ifndef INFER_MODEL_FAMILIES_H
#define INFER_MODEL_FAMILIES_H

#include "model.h"

typedef struct model_loader model_loader;

typedef struct model_family {
    const char *architecture; /* the value of general.architecture, and how the keys begin */
    /* Reads what is not read for every model: m->config is filled but for the scales and `gelu`. */
    int (*read)(model_loader *loader);
    /* The layer's window, rotary table and tensors. */
    int (*load_layer)(model_loader *loader, uint32_t index);
    bool halves; /* a rotary pair of q and k is elements i and i + head_dim / 2 in the file, not 2i and 2i + 1 */
} model_family;

extern const model_family model_llama, model_gemma3;

struct model_loader {
    const gguf_file *file;
    const model_family *family;
    model *m;
    infer_error *error;
    float *rows;      /* ROWS_AT_ONCE of the widest matrix */
    size_t used;      /* tensors of the file that went into the model */
    float rope_base[MODEL_ROPES];
    uint32_t window, pattern; /* of pattern layers the last one sees everything, the others `window` tokens */
};

/* Metadata under "ARCHITECTURE.name". The optional ones leave *out as it is where there is no such key. */
bool model_has(const model_loader *loader, const char *name);
int model_read_number(model_loader *loader, const char *name, uint32_t least, uint32_t most, uint32_t *out);
int model_read_base(model_loader *loader, const char *name, float *out);           /* optional */
int model_refuse_unless_zero(model_loader *loader, const char *name, const char *what); /* optional */

/* The tensors that every family's layers have: gains, qkv, output, gate_up, down. */
int model_load_layer(model_loader *loader, uint32_t index);
/* "blk.INDEX.suffix.weight", `width` elements. turned: elements of a head that will be turned. */
int model_load_gain(model_loader *loader, uint32_t index, const char *suffix, uint32_t width, bool turned, float **out);

#endif
