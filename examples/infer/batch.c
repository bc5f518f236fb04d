/* How the batch of a step is chosen
 *
 * Branches stand in one list, oldest first, and are served in that order. Three rules make every request end:
 *   1. A branch may preempt younger ones only (and held ones, which wait for it), never an older one. So the oldest
 *      that can run at all always gets what it needs, unless it is too large for the whole cache.
 *   2. After a preemption a branch is admitted only when one has ended since, or when there is room for all its tokens:
 *      what was freed goes to whom it was freed for, and the cache does not bring blocks back to drop them again.
 *   3. When nothing could be added, no restore is under way and nothing is left to preempt, the oldest can never run:
 *      it fails with a message. Waiting would not help.
 *   4. Held branches wait for others of their request. When all that have a sequence are held, the youngest gives its
 *      own up, so that one of those others is admitted.
 *
 * Prompts are computed in pieces, beside the running branches' next tokens, within step_tokens; one token for each of
 * those is set aside first, so that a long prompt slows them down but does not stop them.
 */
#include "batch.h"

#include <string.h>
#include <time.h>

enum { RESTORE_WAIT_US = 100000 };

double batch_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- leaving ----------------------------------------------------------------------------------------------- */

void batch_release(engine *e, branch *b)
{
    if (b->state != BRANCH_RUNNING) return;
    (void)quire_seq_close(e->cache, b->seq); /* fails for sequences of an open step only, which we never release */
    b->state = BRANCH_WAITING;
    b->length = 0;
    e->running--;
}

void batch_finish(engine *e, branch *b, engine_finish finish)
{
    batch_release(e, b);
    b->state = BRANCH_DONE;
    b->held = false;
    b->finish = finish;
    e->crowded = false;
    b->request->result.total_s = batch_seconds() - b->request->submitted;
}

void batch_sweep(engine *e)
{
    for (branch **link = &e->first; *link;) {
        if ((*link)->state == BRANCH_DONE) *link = (*link)->next;
        else link = &(*link)->next;
    }
}

/* The message is the library's, which has seen the fault. */
static void fail(engine *e, branch *b, const char *text)
{
    infer_fail(&b->request->error, "%s", text);
    b->request->result.error = b->request->error.text;
    batch_finish(e, b, ENGINE_FAILED);
}

/* ---- arriving ---------------------------------------------------------------------------------------------- */

static int match(engine *e, branch *b, infer_error *error)
{
    quire_hit hit;
    quire_status status = quire_seq_match(e->cache, b->seq, b->tokens, b->count, &hit);
    if (status == QUIRE_ERANGE) {
        fail(e, b, quire_error_text());
        return 0;
    }
    if (status) return infer_fail(error, "%s", quire_error_text());
    engine_result *result = &b->request->result;
    result->device += hit.device;
    result->host += hit.host;
    result->partial += hit.partial;
    if (b->index == 0 && b->count == result->prompt_tokens && !result->preemptions) result->prompt_hit = hit.tokens;
    b->length = hit.tokens;
    b->restored = hit.ready;
    return 0;
}

/* Room for all the branch's tokens among blocks that are free or can be evicted, leaving one for each running branch.
 * Pessimistic where it shares blocks with others. */
static bool fits(engine *e, const branch *b)
{
    quire_stats stats = { .size = sizeof stats };
    if (quire_cache_stats(e->cache, &stats)) return true;
    uint64_t block_tokens = quire_cache_options(e->cache)->block_tokens;
    return stats.device_free + stats.device_cached > b->count / block_tokens + e->running;
}

int batch_admit(engine *e, infer_error *error)
{
    for (branch *b = e->first; b && e->running < e->options.most_running; b = b->next) {
        if (b->state != BRANCH_WAITING || b->held) continue;
        if (e->crowded && e->running && !fits(e, b)) return 0;
        quire_seq_options options = { .size = sizeof options, .domain = b->request->given.domain };
        quire_status status = quire_seq_open(e->cache, &options, &b->seq);
        if (status == QUIRE_EFULL && e->running) return 0; /* some will end */
        if (status) return infer_fail(error, "%s", quire_error_text());
        b->state = BRANCH_RUNNING;
        b->length = 0;
        b->restored = true;
        e->running++;
        if (b->request->admitted == 0.0) {
            b->request->admitted = batch_seconds();
            b->request->result.waited_s = b->request->admitted - b->request->submitted;
        }
        if (e->options.reuse && match(e, b, error)) return -1;
    }
    return 0;
}

/* ---- the step ---------------------------------------------------------------------------------------------- */

static bool can_run(const branch *b)
{
    return b->state == BRANCH_RUNNING && !b->held;
}

/* The youngest that is not in the step and that `b` may preempt. */
static branch *find_victim(engine *e, const branch *b)
{
    branch *victim = NULL;
    bool younger = false;
    for (branch *other = e->first; other; other = other->next) {
        if (other->state == BRANCH_RUNNING && other != b && other->adding == 0 && (younger || other->held))
            victim = other;
        if (other == b) younger = true;
    }
    return victim;
}

/* A restore that failed has made the sequence shorter. */
static int look_at_restore(engine *e, branch *b, infer_error *error)
{
    quire_seq_info info;
    if (quire_seq_get(e->cache, b->seq, &info)) return infer_fail(error, "%s", quire_error_text());
    if (!info.ready) return 0;
    engine_result *result = &b->request->result; /* what did not come will be computed */
    result->host -= b->length - info.length;
    if (result->prompt_hit == b->length) result->prompt_hit = info.length;
    b->length = info.length;
    b->restored = true;
    return 0;
}

/* Adds up to `most` tokens of the branch; b->adding stays 0 when it cannot run now. */
static int add_branch(engine *e, quire_step *step, branch *b, uint32_t most, infer_error *error)
{
    size_t left = b->count - b->length;
    uint32_t n = left < most ? (uint32_t)left : most;
    while (n) {
        quire_status status = quire_step_add(step, b->seq, b->tokens + b->length, n);
        if (status == QUIRE_OK) {
            b->adding = n;
            return 0;
        }
        if (status == QUIRE_EAGAIN) return 0;
        if (status == QUIRE_ERANGE) {
            fail(e, b, quire_error_text());
            return 0;
        }
        if (status != QUIRE_EFULL) return infer_fail(error, "%s", quire_error_text());
        branch *victim = find_victim(e, b);
        if (!victim) return 0;
        batch_release(e, victim);
        victim->request->result.preemptions++;
        e->crowded = true;
    }
    return 0;
}

/* Nothing could be added. Wait for a restore, or see that waiting is in vain. */
static int resolve_standstill(engine *e, infer_error *error)
{
    branch *oldest = NULL, *held = NULL;
    for (branch *b = e->first; b; b = b->next) {
        if (b->state == BRANCH_RUNNING && b->held) held = b;
        if (!can_run(b)) continue;
        if (!oldest) oldest = b;
        if (b->restored) continue;
        quire_status status = quire_seq_wait(e->cache, b->seq, RESTORE_WAIT_US);
        return status && status != QUIRE_ETIMEOUT ? infer_fail(error, "%s", quire_error_text()) : 0;
    }
    if (!oldest && held) batch_release(e, held);
    if (oldest) fail(e, oldest, "the whole cache is too small for it; raise QUIRE_DEVICE_BYTES");
    return 0;
}

int batch_add(engine *e, quire_step *step, uint32_t *tokens, infer_error *error)
{
    uint32_t used = 0, set_aside = 0;
    for (branch *b = e->first; b; b = b->next) set_aside += can_run(b);
    for (branch *b = e->first; b; b = b->next) {
        if (!can_run(b)) continue;
        set_aside--;
        if (!b->restored && look_at_restore(e, b, error)) return -1;
        if (!b->restored) continue;
        if (add_branch(e, step, b, e->options.step_tokens - used - set_aside, error)) return -1;
        memcpy(e->ids + used, b->tokens + b->length, b->adding * sizeof *e->ids);
        used += b->adding;
    }
    *tokens = used;
    return used ? 0 : resolve_standstill(e, error);
}
