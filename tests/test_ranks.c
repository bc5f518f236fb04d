/* test_ranks.c: ranks that follow. A random server on rank 0 and one to three more ranks, each on a simulated device of its own
 * with an adversarial scheduler and its own share of the heads; every step each rank stores its share and reads back every byte of
 * every row (support/rank_engine.h). Then copies that fail, host memory that changes, ranks that die, and ranks that fall silent. */
#define _GNU_SOURCE 1
#include "support/testing.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "quire/quire_peer.h"
#include "support/rank_engine.h"

enum {
    MOST_RANKS = 4, MOST_STEPS = 512, THEMES = 3, DEVICE_BLOCKS = 24, HOST_BLOCKS = 40, TIMEOUT_US = 20 * 1000 * 1000
};

/* What rank 0 submits, for all ranks to read. */
typedef struct script {
    pthread_mutex_t lock;
    wanted_step steps[MOST_STEPS];
    uint32_t count;
} script;

/* ---- a link on which this process dies ----------------------------------------------------------------------- */

typedef struct bad_link {
    quire_transport inside;
    uint64_t passed, die_after;
} bad_link;

static void count_bytes(bad_link *link, size_t bytes)
{
    link->passed += bytes;
    if (link->passed >= link->die_after)
        raise(SIGKILL);
}

static quire_status bad_send(void *user, const void *data, size_t bytes, uint64_t timeout_us)
{
    bad_link *link = user;
    if (link->passed + bytes >= link->die_after)
        (void)link->inside.send(link->inside.user, data, bytes / 2, timeout_us);
    count_bytes(link, bytes);
    return link->inside.send(link->inside.user, data, bytes, timeout_us);
}

static quire_status bad_receive(void *user, void *data, size_t bytes, uint64_t timeout_us)
{
    bad_link *link = user;
    quire_status status = link->inside.receive(link->inside.user, data, bytes, timeout_us);
    if (status == QUIRE_OK)
        count_bytes(link, bytes);
    return status;
}

static void bad_interrupt(void *user)
{
    bad_link *link = user;
    link->inside.interrupt(link->inside.user);
}

static void bad_close(void *user)
{
    bad_link *link = user;
    link->inside.close(link->inside.user);
}

/* ---- a rank in a thread -------------------------------------------------------------------------------------- */

typedef struct follower {
    script *script;
    int socket;
    uint32_t first_head, heads;
    uint64_t seed;
    atomic_int fail_next; /* 1: let the next copy fail; the thread makes it 0 */
    atomic_int disarm;
    atomic_int corrupt; /* 1: change a byte of every host slot */
    uint32_t silent_after; /* steps; 0: never */
    uint64_t die_after;  /* bytes of either direction, the process; 0: never */
    pthread_t thread;
    bool wrong;
    atomic_uint steps;   /* enqueued */
    quire_status status; /* that ended it */
} follower;

static void options_of(quire_options *o, quire_group *group, uint32_t heads, uint64_t seed)
{
    static _Thread_local char device[32];
    if (quire_options_init(o, sizeof *o) != QUIRE_OK)
        abort();
    *group = (quire_group){.layers = LAYERS, .kv_heads = heads, .head_dim = HEAD_DIM, .dtype = QUIRE_DTYPE_F32};
    snprintf(device, sizeof device, "sim:%llu", (unsigned long long)seed);
    o->groups = group;
    o->group_count = 1;
    o->device = device;
    o->threads = 1;
    o->log_level = QUIRE_LOG_OFF;
}

/* Stores the engine's part of struct quire_rank, whose first member is its cache (src/peer/rank.c). */
static quire_cache *cache_of(quire_rank *rank)
{
    quire_cache *cache;
    memcpy(&cache, rank, sizeof cache);
    return cache;
}

static void orders(follower *f, quire_cache *cache)
{
    if (atomic_load(&f->fail_next)) {
        quire__device_fail_copy(cache->device, 1);
        atomic_store(&f->fail_next, 0);
    }
    if (atomic_load(&f->disarm)) {
        quire__device_fail_copy(cache->device, 0);
        atomic_store(&f->disarm, 0);
    }
    if (atomic_load(&f->corrupt)) {
        for (uint32_t i = 0; i < cache->host_slots; i++)
            *(unsigned char *)quire__host_tier_slot(quire__mover_host_tier(cache->mover), i) ^= 1;
        atomic_store(&f->corrupt, 0);
    }
}

static void follow(follower *f, quire_rank *rank)
{
    engine e = {.cache = cache_of(rank), .first_head = f->first_head, .heads = f->heads, .random = f->seed};
    const quire_view *view = NULL;

    while (f->status == QUIRE_OK || f->status == QUIRE_ETIMEOUT) {
        orders(f, e.cache);
        f->status = quire_rank_next(rank, NULL, &view, 2000);
        if (f->status != QUIRE_OK)
            continue;
        if (view == NULL)
            break;
        pthread_mutex_lock(&f->script->lock);
        const wanted_step *want = &f->script->steps[atomic_load(&f->steps)];
        pthread_mutex_unlock(&f->script->lock);
        if (!engine_run(&e, view, want))
            e.wrong = true;
        if (atomic_fetch_add(&f->steps, 1) + 1 == f->silent_after)
            usleep(1500 * 1000);
        f->status = quire_rank_commit(rank);
        if (quire__random(&e.random) % 8 == 0)
            engine_sync(&e);
    }
    engine_sync(&e);
    f->wrong = e.wrong;
}

static void *follower_main(void *arg)
{
    follower *f = arg;
    quire_options options;
    quire_group group;
    quire_transport transport;
    quire_rank *rank = NULL;

    options_of(&options, &group, f->heads, f->seed);
    if (quire_transport_socket(&transport, f->socket) != QUIRE_OK)
        abort();
    bad_link link = {.inside = transport, .die_after = f->die_after};
    if (f->die_after > 0)
        transport = (quire_transport){sizeof transport, &link, bad_send, bad_receive, bad_interrupt, bad_close};
    f->status = quire_rank_open(&rank, &options, &transport, TIMEOUT_US);
    if (f->status != QUIRE_OK) {
        transport.close(transport.user);
        return NULL;
    }
    follow(f, rank);
    quire_rank_close(rank);
    return NULL;
}

/* ---- rank 0 -------------------------------------------------------------------------------------------------- */

typedef struct member {
    bool open;
    quire_seq handle;
    int32_t tokens[LONGEST];
    uint32_t target, length;
} member;

typedef struct world {
    quire_cache *cache;
    quire_ranks *ranks;
    engine engine;
    script script;
    follower followers[MOST_RANKS];
    uint32_t others; /* ranks besides 0 */
    member members[SEQUENCES];
    int32_t themes[THEMES][LONGEST];
    uint64_t random;
    bool faults;
    uint32_t restored, evicted, lost; /* lost: sequences that became shorter, for a rank's restore failed */
} world;

static uint32_t below(world *w, uint32_t bound)
{
    return (uint32_t)(quire__random(&w->random) % bound);
}

static void open_rank0(world *w, uint64_t seed, uint32_t heads)
{
    quire_options o;
    quire_group group;
    uint64_t block = 0;

    options_of(&o, &group, heads, seed);
    o.block_tokens = BLOCK_TOKENS;
    assert_int_equal(quire_block_bytes(&o, &block), QUIRE_OK);
    o.device_bytes = DEVICE_BLOCKS * block;
    o.host_bytes = HOST_BLOCKS * block;
    o.max_sequences = SEQUENCES;
    o.max_seq_tokens = LONGEST;
    o.max_step_tokens = SEQUENCES * 16;
    o.hash_key = seed;
    assert_int_equal(quire_cache_open(&w->cache, &o), QUIRE_OK);
    w->engine = (engine){.cache = w->cache, .heads = heads};
}

/* Rank r has r + 1 heads, so that no two have blocks of one size. */
static void follower_init(world *w, uint32_t r, uint64_t seed)
{
    uint32_t head = 1;
    for (uint32_t before = 0; before < r; before++)
        head += before + 2;
    w->followers[r] = (follower){.script = &w->script, .first_head = head, .heads = r + 2, .seed = seed * 16 + r};
}

static void start_followers(world *w, uint64_t seed, uint64_t timeout_us, uint32_t silent_after)
{
    quire_transport transports[MOST_RANKS];

    pthread_mutex_init(&w->script.lock, NULL);
    for (uint32_t r = 0; r < w->others; r++) {
        int ends[2];
        follower *f = &w->followers[r];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        follower_init(w, r, seed);
        f->socket = ends[1];
        f->silent_after = r == 0 ? silent_after : 0;
        assert_int_equal(pthread_create(&f->thread, NULL, follower_main, f), 0);
        assert_int_equal(quire_transport_socket(&transports[r], ends[0]), QUIRE_OK);
    }
    if (quire_ranks_open(&w->ranks, w->cache, transports, w->others, timeout_us) != QUIRE_OK)
        fail_msg("%s", quire_error_text());
}

static void states_of(const member *m, uint32_t count, uint64_t *states)
{
    uint64_t state = 77;
    for (uint32_t i = 0; i < count; i++)
        states[i] = state = mix(state, (uint64_t)(uint32_t)m->tokens[i] + 1);
}

/* The final length of a sequence whose restore has ended. */
static bool settle(world *w, member *m)
{
    quire_seq_info info;
    assert_int_equal(quire_seq_get(w->cache, m->handle, &info), QUIRE_OK);
    m->length = (uint32_t)info.length;
    return info.ready != 0;
}

static void drain(world *w)
{
    if (quire_cache_drain(w->cache, TIMEOUT_US) != QUIRE_OK)
        fail_msg("drain: %s", quire_error_text());
}

static void order(atomic_int *what)
{
    atomic_store(what, 1);
    while (atomic_load(what))
        usleep(200);
}

/* Nothing is copied on that rank, and nothing will be until rank 0 decides it. */
static void quiet(world *w, follower *f)
{
    drain(w);
    while (atomic_load(&f->steps) < w->script.count)
        usleep(200);
}

/* Sometimes the restore of one rank's copies fails, or its host memory has changed. */
static void open_member(world *w, member *m)
{
    quire_hit hit;
    follower *victim = NULL;
    const int32_t *theme = w->themes[below(w, THEMES)];
    uint32_t keep = 4 + below(w, LONGEST - 20);

    m->target = keep + below(w, 12);
    memcpy(m->tokens, theme, keep * sizeof *theme);
    for (uint32_t i = keep; i < m->target; i++)
        m->tokens[i] = (int32_t)below(w, 3);
    assert_int_equal(quire_seq_open(w->cache, NULL, &m->handle), QUIRE_OK);
    if (w->faults && below(w, 3) == 0) {
        victim = &w->followers[below(w, w->others)];
        quiet(w, victim);
        order(&victim->fail_next);
    }
    if (quire_seq_match(w->cache, m->handle, m->tokens, m->target, &hit) != QUIRE_OK)
        fail_msg("match: %s", quire_error_text());
    m->open = true;
    w->restored += hit.host > 0;
    if (victim != NULL) {
        drain(w);
        order(&victim->disarm);
        (void)settle(w, m);
        w->lost += m->length < hit.tokens;
    }
    (void)settle(w, m);
}

/* Adds what can be added of each sequence that is ready; some steps are cancelled, before their submit or after. */
static quire_status step(world *w)
{
    quire_step *step;
    uint32_t added[SEQUENCES] = {0}, fate = below(w, 20);
    wanted_step *want = &w->script.steps[w->script.count];

    assert_true(w->script.count < MOST_STEPS);
    quire_status status = quire_step_begin(w->cache, NULL, &step);
    if (status != QUIRE_OK)
        return status;
    want->count = 0;
    for (int i = 0; i < SEQUENCES; i++) {
        member *m = &w->members[i];
        if (!m->open || !settle(w, m) || m->length >= m->target)
            continue;
        uint32_t some = 1 + below(w, 12);
        some = some < m->target - m->length ? some : m->target - m->length;
        if (quire_step_add(step, m->handle, m->tokens + m->length, some) != QUIRE_OK)
            continue;
        added[i] = some;
        row *r = &want->rows[want->count++];
        r->length = m->length + some;
        r->added = some;
        states_of(m, r->length, r->states);
    }
    bool submits = want->count > 0 && fate != 0;
    pthread_mutex_lock(&w->script.lock); /* published: whoever takes the lock next sees the rows */
    w->script.count += submits;
    pthread_mutex_unlock(&w->script.lock);
    if (!submits) {
        quire_step_cancel(step);
        return QUIRE_OK;
    }
    status = quire_step_submit(step);
    if (status != QUIRE_OK || !engine_run(&w->engine, quire_step_view(step, 0), want) || fate == 1) {
        quire_step_cancel(step);
        return status;
    }
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
    for (int i = 0; i < SEQUENCES; i++)
        w->members[i].length += added[i];
    return QUIRE_OK;
}

static void close_member(world *w, member *m)
{
    assert_int_equal(quire_seq_close(w->cache, m->handle), QUIRE_OK);
    m->open = false;
}

static void fork_member(world *w, const member *m)
{
    for (int i = 0; i < SEQUENCES; i++)
        if (!w->members[i].open) {
            member *child = &w->members[i];
            *child = *m;
            if (quire_seq_fork(w->cache, m->handle, &child->handle) != QUIRE_OK)
                child->open = false;
            child->target = m->length + 1 + below(w, LONGEST - m->length > 8 ? 8 : 1);
            child->target = child->target < LONGEST ? child->target : LONGEST;
            for (uint32_t t = m->length; t < child->target; t++)
                child->tokens[t] = (int32_t)below(w, 3);
            return;
        }
}

static quire_status operate(world *w)
{
    uint32_t dice = below(w, 100);
    member *m = &w->members[below(w, SEQUENCES)];

    if (dice < 45)
        return step(w);
    if (dice < 65 && !m->open)
        open_member(w, m);
    else if (dice < 75 && m->open)
        close_member(w, m);
    else if (dice < 82 && m->open && settle(w, m) && m->length > 0)
        fork_member(w, m);
    else if (dice < 86 && m->open && settle(w, m) && m->length > 1)
        assert_int_equal(quire_seq_truncate(w->cache, m->handle, m->length - 1 - below(w, 2) % m->length), QUIRE_OK);
    else if (dice < 90)
        engine_sync(&w->engine);
    else if (dice < 91 && w->faults) {
        follower *f = &w->followers[below(w, w->others)];
        quiet(w, f);
        order(&f->corrupt);
    } else
        assert_int_equal(quire_cache_poll(w->cache), QUIRE_OK);
    return QUIRE_OK;
}

static void world_start(world *w, uint64_t seed, uint32_t others, bool faults)
{
    memset(w, 0, sizeof *w);
    w->random = seed * 7 + 3;
    w->others = others;
    w->faults = faults;
    for (uint32_t i = 0; i < THEMES * LONGEST; i++)
        w->themes[i / LONGEST][i % LONGEST] = (int32_t)below(w, 3);
    open_rank0(w, seed, 1);
}

/* The bookkeeping is whole, and so are the bytes of this rank. */
static void world_end(world *w)
{
    quire_stats stats = {.size = sizeof stats};

    engine_sync(&w->engine);
    assert_false(w->engine.wrong);
    for (int i = 0; i < SEQUENCES; i++)
        if (w->members[i].open)
            close_member(w, &w->members[i]);
    assert_int_equal(quire_cache_check(w->cache), QUIRE_OK);
    assert_int_equal(quire_cache_stats(w->cache, &stats), QUIRE_OK);
    w->evicted = (uint32_t)stats.evictions_device;
    quire_cache_close(w->cache);
    pthread_mutex_destroy(&w->script.lock);
}

static world *the_world(void)
{
    static world *w;
    w = w != NULL ? w : malloc(sizeof *w);
    return w;
}

/* ---- the promises -------------------------------------------------------------------------------------------- */

typedef struct tally {
    uint32_t restored, evicted, lost;
} tally;

static void run_seed(uint64_t seed, uint32_t others, bool faults, uint32_t operations, tally *sum)
{
    world *w = the_world();

    world_start(w, seed, others, faults);
    start_followers(w, seed, TIMEOUT_US, 0);
    for (uint32_t i = 0; i < operations; i++)
        if (operate(w) != QUIRE_OK)
            fail_msg("seed %llu: %s", (unsigned long long)seed, quire_error_text());
    assert_int_equal(quire_ranks_check(w->ranks), QUIRE_OK);
    quire_ranks_close(w->ranks);
    for (uint32_t r = 0; r < others; r++) {
        assert_int_equal(pthread_join(w->followers[r].thread, NULL), 0);
        assert_int_equal(w->followers[r].status, QUIRE_OK);
        assert_int_equal(w->followers[r].steps, w->script.count);
        if (w->followers[r].wrong)
            fail_msg("seed %llu: rank %u read wrong bytes", (unsigned long long)seed, r + 1);
    }
    world_end(w);
    sum->restored += w->restored;
    sum->evicted += w->evicted;
    sum->lost += w->lost;
}

static void run_seeds(uint64_t first, uint32_t others, bool faults)
{
    uint32_t seeds = getenv("QUIRE_TEST_SMALL") ? 2 : 8;
    tally sum = {0};

    for (uint64_t seed = first; seed < first + seeds; seed++)
        run_seed(seed, others, faults, 250, &sum);
    assert_true(sum.restored > 0 && sum.evicted > 0 && (!faults || sum.lost > 0)); /* or it would have shown little */
}

static void two_ranks_hold_every_byte_of_their_heads(void **state)
{
    (void)state;
    run_seeds(test_seed("two ranks", 100), 1, false);
}

static void four_ranks_hold_every_byte_of_their_heads(void **state)
{
    (void)state;
    run_seeds(test_seed("four ranks", 200), 3, false);
}

static void a_copy_that_fails_on_one_rank_is_a_miss_on_all(void **state)
{
    (void)state;
    run_seeds(test_seed("failures", 300), 3, true);
}

/* Rank 0 after a rank has gone: the error came, waits end, the bookkeeping is whole, and it serves on alone. */
static void goes_on_alone(world *w)
{
    assert_int_equal(quire_ranks_check(w->ranks), QUIRE_EPEER);
    assert_non_null(strstr(quire_error_text(), "rank 1 is gone"));
    drain(w);
    assert_int_equal(quire_cache_check(w->cache), QUIRE_OK);
    quire_ranks_close(w->ranks);
    for (int i = 0; i < 60; i++)
        assert_int_equal(operate(w), QUIRE_OK);
    drain(w);
    world_end(w);
}

static quire_status run_until_gone(world *w)
{
    for (int i = 0; i < 600; i++) {
        quire_status status = operate(w);
        if (status != QUIRE_OK)
            return status;
    }
    return QUIRE_OK;
}

static void a_rank_that_dies_is_an_error_and_harms_nothing(void **state)
{
    uint64_t random = test_seed("rank dies", 400);
    (void)state;
    for (int round = 0; round < 8; round++) {
        world *w = the_world();
        quire_transport transport;
        int ends[2];
        world_start(w, 400 + (uint64_t)round, 1, false);
        pthread_mutex_init(&w->script.lock, NULL);
        follower_init(w, 0, 7);
        w->followers[0].die_after = round == 0 ? 100 : 300 + quire__random(&random) % 8000;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            close(ends[0]);
            w->followers[0].socket = ends[1]; /* it does not see the parent's script, so its steps store nothing */
            (void)follower_main(&w->followers[0]);
            _exit(1);
        }
        close(ends[1]);
        assert_int_equal(quire_transport_socket(&transport, ends[0]), QUIRE_OK);
        quire_status status = quire_ranks_open(&w->ranks, w->cache, &transport, 1, TIMEOUT_US);
        if (status == QUIRE_OK) {
            assert_int_equal(run_until_gone(w), QUIRE_EPEER);
            goes_on_alone(w);
        } else {
            assert_int_equal(status, QUIRE_EPEER);
            transport.close(transport.user);
            world_end(w);
        }
        int how = 0;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    }
}

static void a_rank_that_falls_silent_is_an_error_in_time(void **state)
{
    world *w = the_world();
    (void)state;
    world_start(w, 500, 1, false);
    start_followers(w, 500, 200 * 1000, 5);
    assert_int_equal(run_until_gone(w), QUIRE_EPEER);
    assert_non_null(strstr(quire_error_text(), "said nothing"));
    goes_on_alone(w);
    assert_int_equal(pthread_join(w->followers[0].thread, NULL), 0);
    assert_int_equal(w->followers[0].status, QUIRE_EPEER);
}

static void a_rank_whose_rank_0_dies_gets_an_error(void **state)
{
    world *w = the_world();
    int ends[2];
    (void)state;
    world_start(w, 600, 1, false);
    pthread_mutex_init(&w->script.lock, NULL);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        quire_transport transport;
        close(ends[1]);
        if (quire_transport_socket(&transport, ends[0]) != QUIRE_OK ||
            quire_ranks_open(&w->ranks, w->cache, &transport, 1, TIMEOUT_US) != QUIRE_OK)
            _exit(1);
        raise(SIGKILL);
    }
    close(ends[0]);
    follower_init(w, 0, 9);
    w->followers[0].socket = ends[1];
    (void)follower_main(&w->followers[0]);
    assert_int_equal(w->followers[0].status, QUIRE_EPEER);
    assert_int_equal(waitpid(child, NULL, 0), child);
    world_end(w);
}

static quire_status nothing_there(void *user, const void *data, size_t bytes, uint64_t timeout_us)
{
    (void)user, (void)data, (void)bytes, (void)timeout_us;
    return QUIRE_EPEER;
}

static quire_status nothing_comes(void *user, void *data, size_t bytes, uint64_t timeout_us)
{
    return nothing_there(user, data, bytes, timeout_us);
}

static void no_effect(void *user)
{
    (void)user;
}

static void wrong_calls_are_refused_with_a_reason(void **state)
{
    world *w = the_world();
    quire_transport transport = {sizeof transport, NULL, nothing_there, nothing_comes, no_effect, no_effect};
    quire_ranks *ranks = NULL;
    quire_rank *rank = NULL;
    quire_peer *peer = NULL;
    quire_seq seq;
    quire_options options;
    quire_group group;
    const quire_view *view;
    (void)state;
    world_start(w, 700, 1, false);
    assert_int_equal(quire_ranks_open(NULL, w->cache, &transport, 1, 1), QUIRE_EINVAL);
    assert_int_equal(quire_ranks_open(&ranks, w->cache, &transport, 0, 1), QUIRE_EINVAL);
    assert_int_equal(quire_ranks_open(&ranks, w->cache, &transport, 1, 1), QUIRE_EPEER);
    assert_int_equal(quire_seq_open(w->cache, NULL, &seq), QUIRE_OK);
    assert_int_equal(quire_ranks_open(&ranks, w->cache, &transport, 1, 1), QUIRE_ESTATE);
    assert_non_null(strstr(quire_error_text(), "quire_cache_clear"));
    assert_int_equal(quire_seq_close(w->cache, seq), QUIRE_OK);
    options_of(&options, &group, 1, 1);
    assert_int_equal(quire_rank_open(&rank, &options, &transport, 1), QUIRE_EPEER);
    assert_int_equal(quire_rank_next(NULL, NULL, &view, 1), QUIRE_EINVAL);
    assert_int_equal(quire_rank_commit(NULL), QUIRE_EINVAL);
    assert_int_equal(quire_ranks_check(NULL), QUIRE_EINVAL);
    quire_ranks_close(NULL);
    quire_rank_close(NULL);
    quire_ranks_cancel(NULL);
    quire_rank_cancel(NULL);
    start_followers(w, 700, TIMEOUT_US, 0);
    assert_int_equal(quire_ranks_open(&ranks, w->cache, &transport, 1, 1), QUIRE_ESTATE);
    assert_int_equal(quire_peer_open(&peer, w->cache, &transport, 1), QUIRE_EUNSUPPORTED);
    quire_ranks_cancel(w->ranks);
    assert_int_equal(run_until_gone(w), QUIRE_EPEER);
    quire_ranks_close(w->ranks);
    assert_int_equal(pthread_join(w->followers[0].thread, NULL), 0);
    world_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ranks_hold_every_byte_of_their_heads),
        cmocka_unit_test(four_ranks_hold_every_byte_of_their_heads),
        cmocka_unit_test(a_copy_that_fails_on_one_rank_is_a_miss_on_all),
        cmocka_unit_test(a_rank_that_dies_is_an_error_and_harms_nothing),
        cmocka_unit_test(a_rank_that_falls_silent_is_an_error_in_time),
        cmocka_unit_test(a_rank_whose_rank_0_dies_gets_an_error),
        cmocka_unit_test(wrong_calls_are_refused_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
