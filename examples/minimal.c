/* Two prompts with a common beginning: the second finds the first one's KV in the cache.
 * Build: cc minimal.c $(pkg-config --cflags --libs quire) */
#include <quire/quire.h>
#include <stdio.h>
#include <stdlib.h>

#define TRY(call) ((call) == QUIRE_OK ? (void)0 : (puts(quire_error_text()), exit(1)))

static void serve(quire_cache *cache, const int32_t *prompt, size_t count)
{
    static float qkv[64][8], out[64][8]; /* a real model has Q, K and V from its weights */
    quire_tensor in = {qkv, QUIRE_DTYPE_F32, 1, 8, 8}, result = {out, QUIRE_DTYPE_F32, 1, 8, 8};
    quire_seq seq;
    quire_hit hit;
    quire_step *step;

    TRY(quire_seq_open(cache, NULL, &seq));
    TRY(quire_seq_match(cache, seq, prompt, count, &hit)); /* what need not be computed again */
    TRY(quire_step_begin(cache, NULL, &step));
    TRY(quire_step_add(step, seq, prompt + hit.tokens, count - hit.tokens));
    TRY(quire_step_submit(step));
    for (size_t i = 0; i < (count - hit.tokens) * 8; i++)
        qkv[i / 8][i % 8] = (float)(prompt[hit.tokens + i / 8] % 7) - (float)(i % 3);
    TRY(quire_append(quire_step_view(step, 0), 0, &in, &in)); /* for each layer */
    TRY(quire_attend(quire_step_view(step, 0), 0, &in, &result, 0.35f));
    TRY(quire_step_commit(step)); /* full blocks can be found from here on */
    TRY(quire_seq_close(cache, seq));
    printf("%zu tokens: %zu reused, %zu computed\n", count, hit.tokens, count - hit.tokens);
}

int main(void)
{
    quire_group group = {1, 1, 8, 1, QUIRE_DTYPE_F32, NULL}; /* the model: 1 layer, 1 head of 8 elements */
    quire_options options;
    quire_cache *cache;
    int32_t prompt[40] = {0};

    TRY(quire_options_init(&options, sizeof(options)));
    options.device = "host";
    options.groups = &group;
    options.group_count = 1;
    options.device_bytes = options.host_bytes = 1 << 20;
    TRY(quire_cache_open(&cache, &options));
    serve(cache, prompt, 40);
    prompt[36] = 1; /* another question about the same text */
    serve(cache, prompt, 40);
    quire_cache_close(cache);
    return 0;
}
