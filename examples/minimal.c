/* minimal.c: the smallest program over Quire. A toy "model" of one layer and one head serves two prompts with a common
 * beginning; the second finds the first one's KV in the cache. Build: cc minimal.c $(pkg-config --cflags --libs quire) */
#include <math.h>
#include <quire/quire.h>
#include <stdio.h>
#include <stdlib.h>

enum { PROMPT = 40, DIM = 8 };

#define TRY(call) ((call) == QUIRE_OK ? (void)0 : (fprintf(stderr, "%s: %s\n", #call, quire_error_text()), exit(1)))

static void serve(quire_cache *cache, const int32_t *prompt)
{
    static float x[PROMPT][DIM], out[PROMPT][DIM]; /* a real model has separate Q, K and V, from its weights */
    quire_seq seq;
    quire_hit hit;
    quire_step *step;

    TRY(quire_seq_open(cache, NULL, &seq));
    TRY(quire_seq_match(cache, seq, prompt, PROMPT, &hit)); /* what need not be computed again */
    TRY(quire_step_begin(cache, NULL, &step));
    TRY(quire_step_add(step, seq, prompt + hit.tokens, PROMPT - hit.tokens));
    TRY(quire_step_submit(step));

    const quire_view *view = quire_step_view(step, 0);
    for (size_t t = 0; t < view->tokens; t++)
        for (size_t i = 0; i < DIM; i++)
            x[t][i] = sinf((float)prompt[hit.tokens + t] * (float)(i + 1));
    quire_tensor in = {x, QUIRE_DTYPE_F32, 1, DIM, DIM}, result = {out, QUIRE_DTYPE_F32, 1, DIM, DIM};
    TRY(quire_append(view, 0, &in, &in));
    TRY(quire_attend(view, 0, &in, &result, 0.35f));

    TRY(quire_step_commit(step)); /* full blocks can be found from here on */
    TRY(quire_seq_close(cache, seq));
    printf("%d tokens: %d reused, %d computed\n", PROMPT, (int)hit.tokens, (int)(PROMPT - hit.tokens));
}

int main(void)
{
    const quire_group group = {1, 1, DIM, 1, QUIRE_DTYPE_F32, NULL};
    quire_options options;
    quire_cache *cache;
    int32_t prompt[PROMPT];

    TRY(quire_options_init(&options, sizeof(options)));
    options.device = "host";
    options.groups = &group;
    options.group_count = 1;
    options.device_bytes = options.host_bytes = 1 << 20;
    TRY(quire_cache_open(&cache, &options));

    for (int i = 0; i < PROMPT; i++)
        prompt[i] = i * i % 97;
    serve(cache, prompt);
    prompt[36] = 98; /* another question about the same text */
    serve(cache, prompt);
    quire_cache_close(cache);
    return 0;
}
