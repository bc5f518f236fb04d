/* counted_memory.h: an allocator that counts the bytes it hands out. */
#ifndef QUIRE_TESTS_COUNTED_MEMORY_H
#define QUIRE_TESTS_COUNTED_MEMORY_H

#include <stdlib.h>

#include "base/memory.h"

static inline void *counted_alloc(void *user, size_t bytes)
{
    *(size_t *)user += bytes;
    return malloc(bytes);
}

static inline void counted_free(void *user, void *memory)
{
    (void)user;
    free(memory);
}

/* `taken` must outlive what is allocated. */
static inline quire__allocator counted_memory(size_t *taken)
{
    return (quire__allocator){counted_alloc, counted_free, taken};
}

#endif
