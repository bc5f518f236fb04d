/* The Llama family. */
#include "model_families.h"

#include <math.h>

static int read_llama(model_loader *l)
{
    model_config *c = &l->m->config;
    c->embedding_scale = 1.0f;
    c->query_scale = 1.0f / sqrtf((float)c->head_dim);
    return 0;
}

const model_family model_llama = {
    .architecture = "llama",
    .read = read_llama,
    .load_layer = model_load_layer,
};
