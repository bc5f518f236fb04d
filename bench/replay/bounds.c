/* bounds.c: three cache policies on stretches of paths (paths.h).
 *
 * LRU is a stack algorithm, leaf-first too: order all blocks by last use, those of one request by depth, and
 * the cache of C blocks holds the first C. A path's blocks enter at the top together, the head first, so in
 * this order a block stands before all that are below it in the tree; the first C are prefix-closed. The
 * position of the block at depth d whose last user is p is
 *
 *    (blocks whose last user came after p) + (d - depth of the first block that p still is the last user of)
 *
 * and a Fenwick tree over the requests has the sum. A stretch is found, from its begin on, as far as C
 * reaches: one interval, whatever C is. (Mattson et al., 1970; the tree is Bennett and Kruskal's, 1975.)
 *
 * The clairvoyant evicts what is used latest in the future (Belady, 1966). A block is used whenever one below
 * it is, so its next use is never later: among equals the deepest goes first, and that is leaf-first by
 * itself. All blocks with the same next user n are one range of n's path, so the state is a range for each n,
 * and evicting cuts the range of the largest n at its deep end.
 */
#include "bounds.h"

#include <stdlib.h>
#include <string.h>

uint64_t replay_infinite(const replay_paths *paths)
{
    uint64_t found = 0;
    for (size_t i = 0; i < paths->stretch_count; i++) {
        const replay_stretch *stretch = &paths->stretches[i];
        uint32_t most = replay_paths_findable(paths, &paths->trace->requests[stretch->request]);
        uint32_t end = replay_smaller(stretch->end, most);
        found += end > stretch->begin ? end - stretch->begin : 0;
    }
    return found;
}

/* ---- LRU ----------------------------------------------------------------------------------------------- */

typedef struct stack {
    const replay_paths *paths;
    uint64_t *sums; /* Fenwick tree: blocks by last user */
    uint32_t *begin; /* of a request: the first of its blocks that it still is the last user of */
    size_t requests;
} stack;

static void add(stack *stack, uint32_t request, int64_t count)
{
    for (size_t i = (size_t)request + 1; i <= stack->requests; i += i & (~i + 1))
        stack->sums[i] += (uint64_t)count;
}

static uint64_t up_to(const stack *stack, uint32_t request)
{
    uint64_t sum = 0;
    for (size_t i = (size_t)request + 1; i > 0; i -= i & (~i + 1))
        sum += stack->sums[i];
    return sum;
}

/* Calls fn for each stretch with the stack position of its first block; `length` is cut to what may be found.
 * */
static int each_position(const replay_paths *paths,
                         void (*fn)(void *arg, uint32_t request, uint64_t position, uint32_t length),
                         void *arg, replay_error *error)
{
    size_t requests = paths->trace->request_count, at = 0;
    stack stack = {paths, calloc(requests + 1, sizeof(uint64_t)), calloc(requests, sizeof(uint32_t)),
                   requests};
    uint64_t all = 0;
    int status = 0;
    if (!stack.sums || !stack.begin)
        status = replay_fail(error, "no memory for the stack distances of %zu requests", requests);
    for (uint32_t r = 0; status == 0 && r < requests; r++) {
        uint32_t most = replay_paths_findable(paths, &paths->trace->requests[r]);
        size_t first = at;
        for (; at < paths->stretch_count && paths->stretches[at].request == r; at++) {
            const replay_stretch *s = &paths->stretches[at];
            uint32_t end = replay_smaller(s->end, most);
            if (end > s->begin)
                fn(arg, r, all - up_to(&stack, s->before) + (s->begin - stack.begin[s->before]),
                   end - s->begin);
        }
        for (size_t i = first; i < at; i++) {
            const replay_stretch *s = &paths->stretches[i];
            add(&stack, s->before, -(int64_t)(s->end - s->begin));
            stack.begin[s->before] = s->end;
            all -= s->end - s->begin;
        }
        uint32_t length = replay_paths_length(paths, &paths->trace->requests[r]);
        add(&stack, r, length);
        all += length;
    }
    free(stack.sums);
    free(stack.begin);
    return status;
}

typedef struct curve {
    const uint64_t *capacities;
    size_t count;
    uint64_t *hits; /* [count], or NULL */
    uint32_t *request_hits; /* [requests][count], or NULL */
} curve;

static void count_position(void *arg, uint32_t request, uint64_t position, uint32_t length)
{
    const curve *curve = arg;
    for (size_t i = 0; i < curve->count; i++) {
        if (curve->capacities[i] <= position)
            continue;
        uint64_t reach = curve->capacities[i] - position;
        uint32_t found = reach < length ? (uint32_t)reach : length;
        if (curve->hits)
            curve->hits[i] += found;
        if (curve->request_hits)
            curve->request_hits[request * curve->count + i] += found;
    }
}

int replay_lru_curve(const replay_paths *paths, const uint64_t *capacities, size_t count, uint64_t *hits,
                     replay_error *error)
{
    curve curve = {.capacities = capacities, .count = count, .hits = hits};
    memset(hits, 0, count * sizeof *hits);
    return each_position(paths, count_position, &curve, error);
}

int replay_lru_hits(const replay_paths *paths, const uint64_t *capacities, size_t count, uint32_t *hits,
                    replay_error *error)
{
    curve curve = {.capacities = capacities, .count = count, .request_hits = hits};
    memset(hits, 0, paths->trace->request_count * count * sizeof *hits);
    return each_position(paths, count_position, &curve, error);
}

/* ---- the clairvoyant ----------------------------------------------------------------------------------- */

typedef struct seer {
    const replay_paths *paths;
    size_t *first, *order; /* stretches by `before`: order[first[p]] .. order[first[p + 1]] */
    uint32_t *begin, *end; /* of a request: the range of its path that it uses next and that is held */
    uint32_t *heap; /* requests that had a range when they entered, the latest at the top */
    bool *in_heap;
    size_t heap_count;
    uint64_t held;
} seer;

static void seer_close(seer *seer)
{
    free(seer->first);
    free(seer->order);
    free(seer->begin);
    free(seer->end);
    free(seer->heap);
    free(seer->in_heap);
}

static int seer_open(seer *seer, const replay_paths *paths, replay_error *error)
{
    size_t requests = paths->trace->request_count, count = paths->stretch_count;
    *seer = (struct seer){.paths = paths,
                          .first = calloc(requests + 2, sizeof(size_t)),
                          .order = calloc(count + 1, sizeof(size_t)),
                          .begin = calloc(requests, sizeof(uint32_t)),
                          .end = calloc(requests, sizeof(uint32_t)),
                          .heap = calloc(requests + 1, sizeof(uint32_t)),
                          .in_heap = calloc(requests, sizeof(bool))};
    if (!seer->first || !seer->order || !seer->begin || !seer->end || !seer->heap || !seer->in_heap) {
        seer_close(seer);
        return replay_fail(error, "no memory for the clairvoyant bound of %zu requests", requests);
    }
    for (size_t i = 0; i < count; i++)
        seer->first[paths->stretches[i].before + 2]++;
    for (size_t p = 2; p < requests + 2; p++)
        seer->first[p] += seer->first[p - 1];
    for (size_t i = 0; i < count; i++) /* first[p + 1] runs from where p begins to where it ends */
        seer->order[seer->first[paths->stretches[i].before + 1]++] = i;
    return 0;
}

static void push(seer *seer, uint32_t request)
{
    if (seer->in_heap[request])
        return;
    size_t at = seer->heap_count++;
    for (; at > 0 && seer->heap[(at - 1) / 2] < request; at = (at - 1) / 2)
        seer->heap[at] = seer->heap[(at - 1) / 2];
    seer->heap[at] = request;
    seer->in_heap[request] = true;
}

static void pop(seer *seer)
{
    seer->in_heap[seer->heap[0]] = false;
    uint32_t last = seer->heap[--seer->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= seer->heap_count)
            break;
        if (child + 1 < seer->heap_count && seer->heap[child + 1] > seer->heap[child])
            child++;
        if (seer->heap[child] <= last)
            break;
        seer->heap[at] = seer->heap[child];
        at = child;
    }
    seer->heap[at] = last;
}

/* Cuts ranges, the one that is used last first, until no more than `most` blocks are held. */
static void shrink(seer *seer, uint64_t most)
{
    while (seer->held > most && seer->heap_count > 0) {
        uint32_t latest = seer->heap[0];
        uint64_t excess = seer->held - most, has = seer->end[latest] - seer->begin[latest];
        uint32_t goes = (uint32_t)(excess < has ? excess : has);
        seer->end[latest] -= goes;
        seer->held -= goes;
        if (goes == has)
            pop(seer);
    }
}

/* Hands the blocks of r's path to those who use them next. */
static void pass_on(seer *seer, uint32_t r)
{
    for (size_t i = seer->first[r]; i < seer->first[r + 1]; i++) {
        const replay_stretch *s = &seer->paths->stretches[seer->order[i]];
        if (seer->begin[s->request] == seer->end[s->request])
            seer->end[s->request] = s->end;
        seer->begin[s->request] = s->begin;
        seer->held += s->end - s->begin;
        push(seer, s->request);
    }
}

int replay_clairvoyant(const replay_paths *paths, uint64_t capacity, bool bypass, uint64_t *hits,
                       replay_error *error)
{
    seer seer;
    if (seer_open(&seer, paths, error))
        return -1;
    *hits = 0;
    for (uint32_t r = 0; r < paths->trace->request_count; r++) {
        const replay_request *request = &paths->trace->requests[r];
        uint32_t held = seer.end[r] - seer.begin[r], length = replay_paths_length(paths, request);
        *hits += replay_smaller(held, replay_paths_findable(paths, request)); /* begin is 0: r comes next */
        seer.held -= held;
        seer.end[r] = seer.begin[r];
        if (!bypass)
            shrink(&seer, capacity > length ? capacity - length : 0);
        pass_on(&seer, r);
        shrink(&seer, capacity);
    }
    seer_close(&seer);
    return 0;
}
