#include "recorded.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SEQUENCES = 65536 };

/* A sequence that is open at this point of the file. */
typedef struct replay_live {
    bool open;
    uint32_t length;
    uint32_t *blocks; /* [room]: of the sequence, in order; those from `count` on are not numbered yet */
    uint32_t count, room;
} replay_live;

/* ---- header -------------------------------------------------------------------------------------------- */

static bool header_number(const char *header, const char *name, uint64_t least, uint64_t most,
                          uint64_t *value)
{
    const char *at = strstr(header, name);
    char *end;
    if (!at || at[strlen(name)] < '0' || at[strlen(name)] > '9')
        return false;
    *value = strtoull(at + strlen(name), &end, 10);
    return (*end == ' ' || *end == '\0') && *value >= least && *value <= most;
}

static bool read_header(replay_recorded *recorded, const char *header)
{
    uint64_t block, device, host, sequences, longest, domains, watermark, offload;
    if (!header_number(header, " block=", 1, 256, &block) ||
        !header_number(header, " device=", 1, INT32_MAX, &device) ||
        !header_number(header, " host=", 0, INT32_MAX, &host) ||
        !header_number(header, " bytes=", 1, UINT32_MAX, &recorded->block_bytes) ||
        !header_number(header, " sequences=", 1, MOST_SEQUENCES, &sequences) ||
        !header_number(header, " longest=", 1, INT32_MAX, &longest) ||
        !header_number(header, " domains=", 1, 1 << 20, &domains) ||
        !header_number(header, " watermark=", 0, INT32_MAX, &watermark) ||
        !header_number(header, " offload=", 0, QUIRE_OFFLOAD_SELECTIVE, &offload))
        return false;
    recorded->block_tokens = (uint32_t)block;
    recorded->device_blocks = (uint32_t)device;
    recorded->host_blocks = (uint32_t)host;
    recorded->max_sequences = (uint32_t)sequences;
    recorded->max_seq_tokens = (uint32_t)longest;
    recorded->max_domains = (uint32_t)domains;
    recorded->watermark = (uint32_t)watermark;
    recorded->offload = (quire_offload)offload;
    const char *policy = strstr(header, " policy=");
    return policy && sscanf(policy, " policy=%31[a-z0-9-]", recorded->policy) == 1;
}

int replay_recorded_open(replay_recorded **out, const char *header, replay_error *error)
{
    replay_recorded *recorded = calloc(1, sizeof *recorded);
    if (!recorded)
        return replay_fail(error, "no memory for a recording");
    if (!read_header(recorded, header)) {
        free(recorded);
        return replay_fail(error,
                           "the header of a quire-trace is damaged; it has block=, device=, host=, bytes=, "
                           "sequences=, longest=, domains=, watermark=, offload= and policy=");
    }
    recorded->live = calloc(recorded->max_sequences, sizeof *recorded->live);
    if (!recorded->live) {
        free(recorded);
        return replay_fail(error, "no memory for a recording");
    }
    *out = recorded;
    return 0;
}

static void forget_live(replay_recorded *recorded)
{
    for (uint32_t i = 0; recorded->live && i < recorded->max_sequences; i++)
        free(recorded->live[i].blocks);
    free(recorded->live);
    recorded->live = NULL;
}

void replay_recorded_close(replay_recorded *recorded)
{
    if (!recorded)
        return;
    forget_live(recorded);
    replay_map_close(&recorded->names);
    free(recorded->events);
    free(recorded->blocks);
    free(recorded->same);
    free(recorded->parent);
    free(recorded->shared);
    free(recorded->token_root);
    free(recorded);
}

/* ---- blocks -------------------------------------------------------------------------------------------- */

typedef struct line {
    replay_recorded *recorded;
    replay_trace *trace; /* whose memory limit holds */
    const char *at;
    uint64_t time_us;
    replay_error *error;
} line;

static int grow(line *line, void *member, size_t *room, size_t need, size_t size)
{
    void *array;
    memcpy(&array, member, sizeof array);
    int status = replay_trace_grow(line->trace, &array, room, need, size, line->error);
    memcpy(member, &array, sizeof array);
    return status;
}

uint32_t replay_recorded_same(const replay_recorded *recorded, uint32_t block)
{
    while (recorded->same[block] != block)
        block = recorded->same[block];
    return block;
}

static int new_block(line *line, uint32_t parent, uint32_t *block)
{
    replay_recorded *r = line->recorded;
    if (r->numbered >= INT32_MAX / r->block_tokens)
        return replay_fail(line->error, "more than %u blocks", r->numbered);
    int status = grow(line, &r->same, &r->same_room, (size_t)r->numbered + 1, sizeof *r->same);
    if (status == 0)
        status = grow(line, &r->parent, &r->parent_room, (size_t)r->numbered + 1, sizeof *r->parent);
    if (status)
        return status;
    r->same[r->numbered] = r->numbered;
    r->parent[r->numbered] = parent;
    *block = r->numbered++;
    return 0;
}

/* Numbers the sequence's blocks up to `count`. */
static int number_up_to(line *line, replay_live *live, uint32_t count)
{
    if (count > live->room) {
        uint32_t room = count + count / 2 + 16;
        uint32_t *blocks = realloc(live->blocks, room * sizeof *blocks);
        if (!blocks)
            return replay_fail(line->error, "no memory for a sequence of %u blocks", count);
        live->blocks = blocks;
        live->room = room;
    }
    for (; live->count < count; live->count++) {
        uint32_t parent = live->count == 0 ? REPLAY_NO_PARENT : live->blocks[live->count - 1];
        int status = new_block(line, parent, &live->blocks[live->count]);
        if (status)
            return status;
    }
    return 0;
}

/* The sequence's block `at` is full, and this is its hash. */
static int name_block(line *line, const replay_live *live, uint32_t at, uint64_t hash)
{
    replay_recorded *r = line->recorded;
    uint32_t block = replay_recorded_same(r, live->blocks[at]), known = replay_map_find(&r->names, hash);
    if (known != REPLAY_MAP_NONE) {
        known = replay_recorded_same(r, known);
        if (known > block) { /* the older number stands: its parent's is older still */
            r->same[known] = block;
        } else {
            r->same[block] = known;
        }
        return 0;
    }
    if (line->trace->memory + replay_map_bytes(&r->names) > line->trace->memory_limit ||
        !replay_map_add(&r->names, hash, block)) {
        replay_fail(line->error, "the hashes of the blocks do not fit the limit; give more with --memory");
        return REPLAY_NO_ROOM;
    }
    return 0;
}

/* The two begin with the same tokens. */
static int share(line *line, uint32_t block, uint32_t other, uint32_t tokens)
{
    replay_recorded *r = line->recorded;
    int status = grow(line, &r->shared, &r->shared_room, r->shared_count + 1, sizeof *r->shared);
    if (status)
        return status;
    r->shared[r->shared_count++] = (replay_shared){block, other, tokens};
    return 0;
}

/* ---- fields -------------------------------------------------------------------------------------------- */

static bool take_number(line *line, uint64_t most, uint64_t *value)
{
    const char *digit = line->at;
    uint64_t sum = 0;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        unsigned number = (unsigned)(*digit - '0');
        if (number > most || sum > (most - number) / 10)
            return false;
        sum = sum * 10 + number;
    }
    if (digit == line->at)
        return false;
    line->at = digit;
    *value = sum;
    return true;
}

static bool take_field(line *line, uint64_t most, uint64_t *value)
{
    return *line->at++ == ' ' && take_number(line, most, value);
}

static bool take_hash(line *line, uint64_t *hash)
{
    *hash = 0;
    for (int i = 0; i < 16; i++, line->at++) {
        char c = *line->at;
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        *hash = *hash << 4 | (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return true;
}

/* A hash, or "-" for none: then it is 0. */
static bool take_hash_field(line *line, uint64_t *hash)
{
    *hash = 0;
    if (*line->at++ != ' ')
        return false;
    if (*line->at == '-') {
        line->at++;
        return true;
    }
    return take_hash(line, hash);
}

static int malformed(const line *line, const char *expected)
{
    return replay_fail(line->error, "malformed at \"%.20s\"; expected: %s", line->at, expected);
}

static bool take_sequence(line *line, bool open, uint32_t *sequence)
{
    uint64_t number = 0;
    if (!take_field(line, line->recorded->max_sequences - 1, &number))
        return false;
    *sequence = (uint32_t)number;
    return line->recorded->live[number].open == open;
}

static int add_event(line *line, replay_event event)
{
    replay_recorded *r = line->recorded;
    int status = grow(line, &r->events, &r->event_room, r->event_count + 1, sizeof *r->events);
    if (status)
        return status;
    event.time_us = line->time_us;
    r->events[r->event_count++] = event;
    return 0;
}

/* With the numbers of the sequence's blocks [first, end). */
static int add_block_event(line *line, replay_event event, const replay_live *live, uint32_t first,
                           uint32_t end)
{
    replay_recorded *r = line->recorded;
    int status = grow(line, &r->blocks, &r->block_room, r->block_count + (end - first), sizeof *r->blocks);
    if (status)
        return status;
    event.blocks = r->block_count;
    event.first_block = first;
    event.block_count = end - first;
    if (end > first)
        memcpy(r->blocks + r->block_count, live->blocks + first, (end - first) * sizeof *r->blocks);
    r->block_count += end - first;
    return add_event(line, event);
}

/* ---- lines --------------------------------------------------------------------------------------------- */

static int take_open(line *line)
{
    uint32_t sequence;
    uint64_t domain;
    if (!take_sequence(line, false, &sequence) || !take_field(line, UINT64_MAX - 9, &domain) || *line->at)
        return malformed(line, "time o SEQUENCE DOMAIN, of a sequence that is not open");
    replay_live *live = &line->recorded->live[sequence];
    live->open = true;
    live->length = live->count = 0;
    return add_event(line, (replay_event){.type = REPLAY_OPEN, .sequence = sequence, .number = domain});
}

/* The blocks that the match found, from the hash of the last of them upwards. */
static bool take_found(line *line, replay_live *live, uint64_t hash, uint32_t full)
{
    replay_recorded *r = line->recorded;
    uint32_t block = replay_map_find(&r->names, hash);
    if (full == 0)
        return true;
    for (uint32_t at = full; at-- > 0;) {
        if (block == REPLAY_MAP_NONE)
            return false;
        block = replay_recorded_same(r, block);
        live->blocks[at] = block;
        block = r->parent[block];
    }
    live->count = full;
    return block == REPLAY_NO_PARENT;
}

static int take_match(line *line)
{
    replay_recorded *r = line->recorded;
    uint32_t sequence;
    uint64_t count, device, host, partial, last, from;
    if (!take_sequence(line, true, &sequence) || !take_field(line, INT32_MAX, &count) ||
        !take_field(line, count, &device) || !take_field(line, count - device, &host) ||
        !take_field(line, device + host, &partial) || !take_hash_field(line, &last) ||
        !take_hash_field(line, &from) || *line->at)
        return malformed(line, "time m SEQUENCE TOKENS DEVICE HOST PARTIAL LAST FROM, of an open sequence");
    replay_live *live = &r->live[sequence];
    uint32_t full = (uint32_t)(device + host - partial) / r->block_tokens;
    uint32_t blocks = (uint32_t)((count + r->block_tokens - 1) / r->block_tokens);
    if (live->count > 0 || live->length > 0)
        return malformed(line, "an empty sequence");
    int status = number_up_to(line, live, blocks);
    if (status)
        return status;
    if (!take_found(line, live, last, full))
        return malformed(line, "a hash that has been named before, at the depth where it was");
    live->count = blocks;
    for (uint32_t at = full; at < blocks; at++) /* numbered before it was known what comes before them */
        r->parent[live->blocks[at]] = at == 0 ? REPLAY_NO_PARENT : live->blocks[at - 1];
    live->length = (uint32_t)(device + host);
    uint32_t other = partial > 0 ? replay_map_find(&r->names, from) : REPLAY_MAP_NONE;
    if (other != REPLAY_MAP_NONE && full < blocks &&
        (status = share(line, live->blocks[full], other, (uint32_t)partial)))
        return status;
    r->matches++;
    r->match_tokens += count;
    r->hit_device += device;
    r->hit_host += host;
    r->hit_partial += partial;
    return add_block_event(
        line,
        (replay_event){
            .type = REPLAY_MATCH, .sequence = sequence, .tokens = (uint32_t)count, .number = device + host},
        live, 0, blocks);
}

/* "SEQUENCE:TOKENS" or "SEQUENCE:TOKENS:HASH,HASH=1.2.3,..." */
static int take_row(line *line)
{
    replay_recorded *r = line->recorded;
    static const char expected[] =
        "SEQUENCE:TOKENS:HASH,HASH,... of an open sequence, a hash for each block filled";
    uint32_t sequence;
    uint64_t count, hash;
    if (!take_sequence(line, true, &sequence) || *line->at++ != ':' ||
        !take_number(line, INT32_MAX - r->live[sequence].length, &count) || count == 0)
        return malformed(line, expected);
    replay_live *live = &r->live[sequence];
    uint32_t size = r->block_tokens, first = live->length / size, end = live->length + (uint32_t)count;
    int status = number_up_to(line, live, (end - 1) / size + 1);
    for (uint32_t at = first; status == 0 && at < end / size; at++) {
        if (*line->at++ != (at == first ? ':' : ',') || !take_hash(line, &hash))
            return malformed(line, expected);
        if (*line->at == '=') /* its tokens */
            line->at += strspn(line->at, "=.-0123456789");
        status = name_block(line, live, at, hash);
    }
    if (status)
        return status;
    live->length = end;
    return add_block_event(line, (replay_event){.type = REPLAY_ROW, .sequence = sequence, .tokens = end},
                           live, first, (end - 1) / size + 1);
}

static int take_step(line *line)
{
    int status = 0;
    while (status == 0 && *line->at == ' ')
        status = take_row(line);
    if (status == 0 && *line->at)
        return malformed(line, "a space between rows");
    return status ? status : add_event(line, (replay_event){.type = REPLAY_STEP_END});
}

static int take_fork(line *line)
{
    replay_recorded *r = line->recorded;
    uint32_t sequence, child;
    if (!take_sequence(line, true, &sequence) || !take_sequence(line, false, &child) || *line->at)
        return malformed(line, "time f SEQUENCE CHILD, of an open one and one that is not");
    replay_live *from = &r->live[sequence], *to = &r->live[child];
    uint32_t full = from->length / r->block_tokens;
    to->count = to->length = 0;
    int status = number_up_to(line, to, from->count > full ? full : from->count);
    if (status)
        return status;
    if (to->count > 0)
        memcpy(to->blocks, from->blocks, to->count * sizeof *to->blocks);
    if (from->count > full) { /* of an open block each has a copy */
        status = number_up_to(line, to, full + 1);
        if (status == 0)
            status = share(line, to->blocks[full], from->blocks[full], from->length % r->block_tokens);
        if (status)
            return status;
    }
    to->open = true;
    to->length = from->length;
    return add_event(line, (replay_event){.type = REPLAY_FORK, .sequence = sequence, .number = child});
}

static int take_truncate(line *line)
{
    uint32_t sequence;
    uint64_t left;
    if (!take_sequence(line, true, &sequence) ||
        !take_field(line, line->recorded->live[sequence].length, &left) || *line->at)
        return malformed(line, "time t SEQUENCE TOKENS, of an open sequence that has as many");
    replay_live *live = &line->recorded->live[sequence];
    uint32_t full = (uint32_t)left / line->recorded->block_tokens;
    live->length = (uint32_t)left;
    if (live->count > full) { /* what follows is new, and begins with what is left */
        uint32_t old = live->blocks[full];
        live->count = full;
        int status = number_up_to(line, live, full + 1);
        if (status == 0)
            status = share(line, live->blocks[full], old, (uint32_t)left % line->recorded->block_tokens);
        if (status)
            return status;
    }
    return add_event(line,
                     (replay_event){.type = REPLAY_TRUNCATE, .sequence = sequence, .tokens = (uint32_t)left});
}

static int take_close(line *line)
{
    uint32_t sequence;
    if (!take_sequence(line, true, &sequence) || *line->at)
        return malformed(line, "time x SEQUENCE, of an open sequence");
    line->recorded->live[sequence].open = false;
    return add_event(line, (replay_event){.type = REPLAY_CLOSE, .sequence = sequence});
}

int replay_recorded_line(replay_recorded *recorded, replay_trace *trace, const char *text,
                         replay_error *error)
{
    line line = {recorded, trace, text, 0, error};
    if (!take_number(&line, INT64_MAX, &line.time_us) || *line.at++ != ' ')
        return malformed(&line, "microseconds and a space");
    switch (*line.at++) {
    case 'o': return take_open(&line);
    case 'm': return take_match(&line);
    case 's': return take_step(&line);
    case 'f': return take_fork(&line);
    case 't': return take_truncate(&line);
    case 'x': return take_close(&line);
    case 'c': return add_event(&line, (replay_event){.type = REPLAY_CLEAR});
    default: line.at--; return malformed(&line, "one of the letters o m s f t x c");
    }
}

/* ---- after the last line ------------------------------------------------------------------------------- */

static uint32_t token_find(uint32_t *roots, uint32_t token)
{
    while (roots[token] != token)
        token = roots[token] = roots[roots[token]];
    return token;
}

/* Tokens of blocks that share a start are made the same, in sets that grow together. */
static int join_tokens(replay_recorded *recorded, replay_error *error)
{
    size_t size = recorded->block_tokens, count = recorded->numbered * size;
    if (recorded->shared_count == 0)
        return 0;
    recorded->token_root = malloc(count * sizeof *recorded->token_root);
    if (!recorded->token_root)
        return replay_fail(error, "no memory for the tokens of %u blocks", recorded->numbered);
    for (size_t i = 0; i < count; i++)
        recorded->token_root[i] = (uint32_t)i;
    for (size_t i = 0; i < recorded->shared_count; i++) {
        const replay_shared *shared = &recorded->shared[i];
        size_t block = replay_recorded_same(recorded, shared->block),
               other = replay_recorded_same(recorded, shared->other);
        for (uint32_t j = 0; j < shared->tokens && j < size; j++)
            recorded->token_root[token_find(recorded->token_root, (uint32_t)(block * size + j))] =
                token_find(recorded->token_root, (uint32_t)(other * size + j));
    }
    for (size_t i = 0; i < count; i++)
        recorded->token_root[i] = token_find(recorded->token_root, (uint32_t)i);
    return 0;
}

int32_t replay_recorded_token(const replay_recorded *recorded, uint32_t block, uint32_t j)
{
    uint32_t token = replay_recorded_same(recorded, block) * recorded->block_tokens + j;
    return (int32_t)(recorded->token_root ? recorded->token_root[token] : token);
}

/* The request of a match: its output is what the sequence had at most, beyond the prompt. */
static int add_request(const replay_recorded *recorded, replay_trace *trace, size_t at, uint64_t domain,
                       replay_error *error)
{
    const replay_event *match = &recorded->events[at];
    uint32_t length = match->tokens;
    for (size_t i = at + 1; i < recorded->event_count; i++) {
        const replay_event *event = &recorded->events[i];
        if (event->sequence != match->sequence || event->type == REPLAY_STEP_END ||
            event->type == REPLAY_CLEAR)
            continue;
        if (event->type == REPLAY_CLOSE)
            break;
        if (event->type == REPLAY_ROW && event->tokens > length)
            length = event->tokens;
    }
    int status = replay_trace_begin(trace, error);
    if (status)
        return status;
    replay_request *request = &trace->requests[trace->request_count];
    request->time_us = (int64_t)match->time_us;
    request->input = match->tokens;
    request->output = length - match->tokens;
    request->domain = domain;
    for (uint32_t k = 0; status == 0 && k < match->tokens / recorded->block_tokens; k++)
        status = replay_trace_add_id(
            trace, replay_recorded_same(recorded, recorded->blocks[match->blocks + k]), error);
    return status ? status : replay_trace_end(trace, error);
}

int replay_recorded_finish(replay_recorded *recorded, replay_trace *trace, replay_error *error)
{
    uint64_t *domains = calloc(recorded->max_sequences, sizeof *domains);
    int status = domains ? join_tokens(recorded, error) : replay_fail(error, "no memory for a recording");
    forget_live(recorded);
    trace->piece_tokens = recorded->block_tokens;
    for (size_t i = 0; status == 0 && i < recorded->event_count; i++) {
        const replay_event *event = &recorded->events[i];
        if (event->type == REPLAY_OPEN)
            domains[event->sequence] = event->number;
        if (event->type == REPLAY_FORK)
            domains[event->number] = domains[event->sequence];
        if (event->type == REPLAY_MATCH && event->tokens > 0)
            status = add_request(recorded, trace, i, domains[event->sequence], error);
    }
    free(domains);
    return status;
}
