/* An eviction policy of one's own: what was used last goes first. It is the right one for a job that goes round the same
 * prompts again and again and whose cache does not hold them all: LRU then evicts each just before its turn.
 * cc policy.c $(pkg-config --cflags --libs quire) */
#include <quire/quire_backend.h>
#include <stdio.h>
#include <stdlib.h>

#define TRY(call) ((call) == QUIRE_OK ? (void)0 : (puts(quire_error_text()), exit(1)))
#define UNLISTED (UINT32_MAX - 1)

/* Blocks without children, in a list; those above them join it when their last child is dropped. */
typedef struct leaves {
    uint32_t *older, *newer; /* [blocks + 1]; the last is the head; UNLISTED: not in the list */
    uint32_t head, count;    /* count: of all blocks in the order, leaves or not */
    quire_policy_tree tree;
    void (*give)(void *user, void *memory);
    void *give_user;
} leaves;

static quire_status leaves_open(void *state, const quire_policy_setup *setup)
{
    leaves *own = (leaves *)state;
    size_t links = (size_t)setup->blocks + 1;
    own->tree = setup->tree;
    own->give = setup->free;
    own->give_user = setup->alloc_user;
    own->head = setup->blocks;
    own->older = (uint32_t *)setup->alloc(setup->alloc_user, 2 * links * sizeof(uint32_t));
    if (own->older == NULL)
        return QUIRE_ENOMEM;
    own->newer = own->older + links;
    for (size_t i = 0; i < links; i++)
        own->newer[i] = UNLISTED;
    own->older[own->head] = own->newer[own->head] = own->head;
    return QUIRE_OK;
}

static void leaves_close(void *state)
{
    leaves *own = (leaves *)state;
    if (own->older != NULL)
        own->give(own->give_user, own->older);
}

static void add(leaves *own, uint32_t block)
{
    uint32_t last = own->older[own->head];
    own->older[block] = last;
    own->newer[block] = own->head;
    own->newer[last] = own->older[own->head] = block;
}

static void cut(leaves *own, uint32_t block)
{
    if (own->newer[block] == UNLISTED)
        return;
    own->newer[own->older[block]] = own->newer[block];
    own->older[own->newer[block]] = own->older[block];
    own->newer[block] = UNLISTED;
}

static void leaves_insert(void *state, const uint32_t *path, uint32_t count, const quire_policy_use *use)
{
    leaves *own = (leaves *)state;
    (void)use;
    own->count += count;
    if (own->tree.children(own->tree.self, path[count - 1]) == 0)
        add(own, path[count - 1]);
}

static void leaves_insert_below(void *state, uint32_t block, uint32_t above, const quire_policy_use *use)
{
    leaves *own = (leaves *)state;
    (void)use;
    cut(own, above);
    own->count++;
    add(own, block);
}

static void leaves_take(void *state, const uint32_t *path, uint32_t count, uint64_t now)
{
    leaves *own = (leaves *)state;
    (void)now;
    own->count -= count;
    for (uint32_t i = 0; i < count; i++)
        cut(own, path[i]);
}

static void leaves_drop(void *state, uint32_t block)
{
    leaves *own = (leaves *)state;
    uint32_t heir = own->tree.heir(own->tree.self, block);
    own->count--;
    cut(own, block);
    if (heir != QUIRE_NO_BLOCK)
        add(own, heir);
}

static uint32_t leaves_victim(void *state)
{
    const leaves *own = (const leaves *)state;
    uint32_t newest = own->older[own->head];
    return newest == own->head ? QUIRE_NO_BLOCK : newest;
}

static uint32_t leaves_count(const void *state)
{
    return ((const leaves *)state)->count;
}

static void leaves_each(const void *state, void (*fn)(void *arg, uint32_t block), void *arg)
{
    const leaves *own = (const leaves *)state;
    for (uint32_t block = 0; block < own->head; block++)
        if (own->tree.waiting(own->tree.self, block))
            fn(arg, block);
}

/* Goes round `prompts` prompts of 4 blocks, `rounds` times, in an arena of 32 blocks; says how many tokens were found. */
static int go_round(const quire_policy *policy, int prompts, int rounds)
{
    static float kv[65][8];
    quire_tensor in = {kv, QUIRE_DTYPE_F32, 1, 8, 8};
    static quire_group group;
    quire_options options;
    quire_cache *cache;
    int found = 0;

    group.layers = group.kv_heads = 1;
    group.head_dim = 8;
    group.dtype = QUIRE_DTYPE_F32;
    TRY(quire_options_init(&options, sizeof(options)));
    options.device = "host";
    options.groups = &group;
    options.group_count = 1;
    options.block_tokens = 16;
    options.device_bytes = 32 * 16 * 2 * sizeof(kv[0]);
    options.host_bytes = 0;
    options.policy = "lru";
    options.custom_policy = policy; /* where it is not NULL, it goes before `policy` */
    TRY(quire_cache_open(&cache, &options));
    for (int turn = 0; turn < rounds * prompts; turn++) {
        int32_t prompt[65] = {turn % prompts}; /* 4 full blocks, and a token that is always computed */
        quire_seq seq;
        quire_step *step;
        quire_hit hit;
        TRY(quire_seq_open(cache, NULL, &seq));
        TRY(quire_seq_match(cache, seq, prompt, 65, &hit));
        TRY(quire_step_begin(cache, NULL, &step));
        TRY(quire_step_add(step, seq, prompt + hit.tokens, 65 - hit.tokens));
        TRY(quire_step_submit(step));
        TRY(quire_append(quire_step_view(step, 0), 0, &in, &in));
        TRY(quire_step_commit(step));
        TRY(quire_seq_close(cache, seq));
        found += (int)hit.tokens;
    }
    quire_cache_close(cache);
    return found;
}

int main(void)
{
    static quire_policy newest_first; /* of zeros: what is not set is not needed */
    newest_first.size = sizeof(newest_first);
    newest_first.name = "newest-first";
    newest_first.state_bytes = sizeof(leaves);
    newest_first.open = leaves_open;
    newest_first.close = leaves_close;
    newest_first.insert = leaves_insert;
    newest_first.insert_below = leaves_insert_below;
    newest_first.take = leaves_take;
    newest_first.drop = leaves_drop;
    newest_first.victim = leaves_victim;
    newest_first.count = leaves_count;
    newest_first.each = leaves_each;
    printf("13000 tokens asked for; lru finds %d, ", go_round(NULL, 10, 20));
    printf("newest first %d\n", go_round(&newest_first, 10, 20));
    return 0;
}
