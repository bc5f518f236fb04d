#include "node.h"

#include "trace.h"

/* Any fixed key: a replay gives the same figures every time. */
#define HASH_KEY 0x7265706c61790001u

/* As a cache does by default, with steps as long as they come. */
static uint32_t low_blocks(const replay_node_config *config)
{
    uint32_t device = config->geometry.device_blocks;
    uint32_t step = config->step_tokens > 0 ? config->step_tokens : config->longest;
    uint32_t low = replay_larger(device / 16, 2 * (step / config->geometry.block_tokens + 1));
    return replay_larger(replay_smaller(low, device / 4), 1);
}

int replay_node_open(replay_node *node, const replay_node_config *config, replay_error *error)
{
    uint32_t bt = config->geometry.block_tokens, blocks = (config->longest + bt - 1) / bt + 1;
    quire_offload offload = config->offload == QUIRE_OFFLOAD_NONE ? QUIRE_OFFLOAD_WRITE_THROUGH : config->offload;
    if (config->geometry.host_blocks == 0)
        offload = QUIRE_OFFLOAD_NONE;
    quire__book_config book = {.block_tokens = bt,
                               .device_slots = config->geometry.device_blocks,
                               .host_slots = config->geometry.host_blocks,
                               .max_sequences = config->max_sequences,
                               .max_seq_tokens = config->longest,
                               .max_domains = config->max_domains,
                               .watermark_blocks = config->watermark,
                               .event_capacity = config->events,
                               .hash_key = HASH_KEY,
                               .policy = config->policy,
                               .offload = offload,
                               .offload_low = low_blocks(config),
                               .allocator = quire__allocator_default};
    *node = (replay_node){.geometry = config->geometry};
    uint32_t moves = config->plan > 0 ? config->plan : replay_larger(2 * blocks, book.offload_low);
    if (quire__plan_open(&node->plan, &book.allocator, moves) || quire__book_open(&node->book, &book)) {
        replay_fail(error, "%s", quire_error_text());
        replay_node_close(node);
        return -1;
    }
    return 0;
}

void replay_node_close(replay_node *node)
{
    quire__book_close(node->book);
    quire__plan_close(&node->plan, &quire__allocator_default);
    *node = (replay_node){0};
}

void replay_node_settle(replay_node *node)
{
    for (uint32_t i = 0; i < node->plan.count; i++) {
        const quire__move *move = &node->plan.moves[i];
        if (move->type == QUIRE__MOVE_COPY)
            continue;
        node->offloads += move->type == QUIRE__MOVE_OFFLOAD;
        node->restores += move->type == QUIRE__MOVE_RESTORE;
        quire__book_complete(node->book, move, true);
    }
    node->plan.count = 0;
}

void replay_node_offload(replay_node *node, bool busy)
{
    quire__book_offload_ahead(node->book, busy, &node->plan);
}

/* Computes tokens [found, total) in one step. */
static quire_status compute(replay_node *node, uint32_t seq, const int32_t *tokens, uint32_t found,
                            uint32_t total)
{
    uint32_t moving = 0;
    quire__book_step_begin(node->book, ++node->step);
    quire_status status =
        quire__book_reserve(node->book, seq, tokens + found, total - found, &node->plan, &moving);
    if (status == QUIRE_OK)
        quire__book_commit(node->book, seq, &node->plan);
    quire__book_step_end(node->book);
    replay_node_settle(node);
    replay_node_offload(node, false);
    replay_node_settle(node);
    return status;
}

/* A block that is shared in part needs room beside its copy; where there is none, that part is computed after
 * all. */
static void give_up_partial(replay_node *node, uint32_t seq, quire_hit *hit)
{
    size_t *tier = hit->host >= hit->partial ? &hit->host : &hit->device;
    *tier -= hit->partial;
    hit->tokens -= hit->partial;
    hit->partial = 0;
    (void)quire__book_seq_truncate(node->book, seq, hit->tokens);
}

void replay_node_hint(replay_node *node, uint32_t seq, uint32_t flags, uint32_t generated)
{
    if (flags == 0 && generated == 0)
        return;
    quire_hint hint = {.size = sizeof hint, .flags = flags, .generated = generated};
    quire__book_seq_hint(node->book, seq, &hint);
}

int replay_node_serve(replay_node *node, uint64_t domain, const int32_t *tokens, uint32_t input,
                      uint32_t total, replay_served *served, replay_error *error)
{
    uint32_t seq;
    *served = (replay_served){.computed = total};
    if ((uint64_t)node->geometry.device_blocks * node->geometry.block_tokens < total) {
        served->refused = true;
        return 0;
    }
    quire_hit *hit = &served->hit;
    if (quire__book_seq_open(node->book, domain, &seq) ||
        quire__book_seq_match(node->book, seq, tokens, input, &node->plan, hit))
        return replay_fail(error, "%s", quire_error_text());
    replay_node_settle(node);
    (void)quire__book_seq_ready(node->book, seq);
    quire_status status = QUIRE_OK;
    if (total > hit->tokens)
        status = compute(node, seq, tokens, (uint32_t)hit->tokens, total);
    if (status == QUIRE_EFULL && hit->partial > 0) {
        give_up_partial(node, seq, hit);
        status = compute(node, seq, tokens, (uint32_t)hit->tokens, total);
    }
    served->computed = total > hit->tokens ? total - (uint32_t)hit->tokens : 0;
    replay_node_hint(node, seq, node->hints, node->generated);
    quire__book_seq_close(node->book, seq);
    return status == QUIRE_OK ? 0 : replay_fail(error, "%s", quire_error_text());
}
