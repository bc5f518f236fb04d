/* memory.h: the injected allocator. All bookkeeping memory is taken through it, at open. */
#ifndef QUIRE_MEMORY_H
#define QUIRE_MEMORY_H

#include "quire/quire.h"

typedef struct quire__allocator {
    void *(*alloc)(void *user, size_t bytes);
    void (*free)(void *user, void *memory);
    void *user;
} quire__allocator;

/* malloc and free. */
extern const quire__allocator quire__allocator_default;
/* count * size zeroed bytes, 64-byte aligned; `what` names them in the QUIRE_ENOMEM text. Overflow is QUIRE_ENOMEM. */
quire_status quire__memory_take(const quire__allocator *allocator, size_t count, size_t size, const char *what,
                                void **memory);
void quire__memory_give(const quire__allocator *allocator, void *memory); /* NULL is allowed */

#endif
