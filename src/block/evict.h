/* evict.h: who goes when a tier is full. The vtable and its rules are public, quire_backend.h; here is what the deciding
 * half calls. A policy that keeps the order of insertion needs no tree: a path's head counts as more recent than its
 * tail, and a node with a relative above it in the order is inserted just older than that one, so every node is older
 * than what is above it. residency.c says why that suffices.
 */
#ifndef QUIRE_EVICT_H
#define QUIRE_EVICT_H

#include <stdbool.h>

#include "base/memory.h"
#include "quire/quire_backend.h"

typedef struct quire__evict {
    const quire_policy *policy;
    void *state;
    quire_policy_use use; /* of whoever is letting blocks go; the time is kept by the book */
} quire__evict;

/* QUIRE_EINVAL: no such policy. QUIRE_ENOMEM. `custom` NULL: the library's own of that name. */
quire_status quire__evict_open(quire__evict *evict, const quire__allocator *allocator, const char *policy,
                               const quire_policy *custom, const quire_policy_setup *setup);
void quire__evict_close(quire__evict *evict, const quire__allocator *allocator);

/* Who lets blocks go, until the next call. NULL: nobody in particular. */
void quire__evict_context(quire__evict *evict, const quire_policy_use *use);
void quire__evict_insert_path(quire__evict *evict, const uint32_t *path, uint32_t count);
void quire__evict_insert_below(quire__evict *evict, uint32_t node, uint32_t above);
/* Somebody uses them again. */
void quire__evict_remove_path(quire__evict *evict, const uint32_t *path, uint32_t count);
void quire__evict_remove(quire__evict *evict, uint32_t node);
/* The tier has it no longer; its parent still counts it as a child. */
void quire__evict_drop(quire__evict *evict, uint32_t node);
void quire__evict_sealed(quire__evict *evict, const uint32_t *path, uint32_t count);
uint32_t quire__evict_victim(quire__evict *evict);
/* `holds`: quire_policy_use.host_holds */
bool quire__evict_worth_offload(quire__evict *evict, uint32_t node, uint64_t holds);
/* Blocks of the order that will never be victims as things are. */
uint32_t quire__evict_kept(const quire__evict *evict);
/* Up to `most` blocks in about the order in which they would be victims; nothing changes. */
uint32_t quire__evict_coldest(quire__evict *evict, uint32_t *nodes, uint32_t most);
uint32_t quire__evict_count(const quire__evict *evict);
void quire__evict_each(const quire__evict *evict, void (*fn)(void *arg, uint32_t node), void *arg);

#endif
