/* Two questions about one text: the second finds the KV of the text in the cache.
 * cc minimal.c $(pkg-config --cflags --libs quire) */
#include <quire/quire.h>
#include <stdio.h>
#include <stdlib.h>

#define TRY(call) ((call) == QUIRE_OK ? (void)0 : (puts(quire_error_text()), exit(1)))

int main(void)
{
    static float qkv[40][8], out[40][8]; /* a real model computes Q, K and V from its weights */
    quire_tensor in = {qkv, QUIRE_DTYPE_F32, 1, 8, 8}, result = {out, QUIRE_DTYPE_F32, 1, 8, 8};
    static quire_group group; /* of zeros */
    int32_t prompt[40] = {0};
    quire_options options;
    quire_cache *cache;
    quire_step *step;
    quire_seq seq;
    quire_hit hit;

    TRY(quire_options_init(&options, sizeof(options)));
    group.layers = group.kv_heads = 1;
    group.head_dim = 8;
    group.dtype = QUIRE_DTYPE_F32;
    options.device = "host";
    options.groups = &group;
    options.group_count = 1;
    options.device_bytes = options.host_bytes = 1 << 20;
    TRY(quire_cache_open(&cache, &options));
    for (prompt[36] = 0; prompt[36] < 2; prompt[36]++) {
        TRY(quire_seq_open(cache, NULL, &seq));
        TRY(quire_seq_match(cache, seq, prompt, 40, &hit)); /* this much need not be computed again */
        TRY(quire_step_begin(cache, NULL, &step));
        TRY(quire_step_add(step, seq, prompt + hit.tokens, 40 - hit.tokens));
        TRY(quire_step_submit(step));
        TRY(quire_append(quire_step_view(step, 0), 0, &in, &in)); /* both for each layer */
        TRY(quire_attend(quire_step_view(step, 0), 0, &in, &result, 0.35f));
        TRY(quire_step_commit(step)); /* full blocks can be found from here on */
        TRY(quire_seq_close(cache, seq));
        printf("40 tokens: %d reused, %d computed\n", (int)hit.tokens, 40 - (int)hit.tokens);
    }
    quire_cache_close(cache);
    return 0;
}
