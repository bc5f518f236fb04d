/* Gemma 3 (text). Beside a Llama it scales its embedding, norms queries and keys head by head and what attention and
 * MLP add to the stream, gates with a GELU, and alternates: of six layers five see a window and turn by a base of their
 * own, the sixth sees everything. (Gemma Team, Gemma 3 Technical Report, 2025; how files store it: llama.cpp.) */
#include "model_families.h"

#include <math.h>

enum { PATTERN = 6, LAYERS_27B = 62 };

#define LOCAL_BASE 10000.0f

static int read_gemma3(model_loader *l)
{
    model_config *c = &l->m->config;
    c->gelu = true;
    c->embedding_scale = sqrtf((float)c->width);
    /* The largest one scales by the width of a head that it would have if heads divided its width. */
    c->query_scale = 1.0f / sqrtf((float)(c->layers == LAYERS_27B ? c->width / c->heads : c->head_dim));
    l->pattern = PATTERN;
    l->rope_base[MODEL_ROPE_GLOBAL] = 1e6f;
    l->rope_base[MODEL_ROPE_LOCAL] = LOCAL_BASE;
    if (model_has(l, "attention.sliding_window_pattern") &&
        model_read_number(l, "attention.sliding_window_pattern", 1, 1024, &l->pattern))
        return -1;
    return model_read_number(l, "attention.sliding_window", 1, INT32_MAX, &l->window) ||
           model_read_base(l, "rope.freq_base", &l->rope_base[MODEL_ROPE_GLOBAL]) ||
           model_read_base(l, "rope.freq_base_swa", &l->rope_base[MODEL_ROPE_LOCAL]) ||
           model_refuse_unless_zero(l, "attn_logit_softcapping", "a cap on attention scores") ||
           model_refuse_unless_zero(l, "final_logit_softcapping", "a cap on logits") ? -1 : 0;
}

static int load_gemma3_layer(model_loader *l, uint32_t index)
{
    const model_config *c = &l->m->config;
    model_layer *layer = &l->m->layer[index];
    bool whole = index % l->pattern == l->pattern - 1;
    layer->window = whole ? 0 : l->window;
    layer->rope = whole ? MODEL_ROPE_GLOBAL : MODEL_ROPE_LOCAL;
    return model_load_layer(l, index) ||
           model_load_gain(l, index, "attn_q_norm", c->head_dim, true, &layer->query_gain) ||
           model_load_gain(l, index, "attn_k_norm", c->head_dim, true, &layer->key_gain) ||
           model_load_gain(l, index, "post_attention_norm", c->width, false, &layer->attention_out_gain) ||
           model_load_gain(l, index, "post_ffw_norm", c->width, false, &layer->ffn_out_gain) ? -1 : 0;
}

const model_family model_gemma3 = {
    .architecture = "gemma3",
    .read = read_gemma3,
    .load_layer = load_gemma3_layer,
    .halves = true,
};
