#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"

/* What memory_take hands out lies behind a gap of 64 bytes or more, whose last word is the address that the
 * allocator gave:
 *
 *   raw            aligned to 64
 *   | gap   | raw  | count * size zeroed bytes |
 */
enum { ALIGNMENT = 64 };

/* Block records, the prefix table and eviction orders gain from huge pages: a call touches lines all over them, and with
 * 4 KiB pages many of these are TLB misses too (a replay is 7 to 11 % faster). From a quarter of a page on an array gets
 * whole ones, so each may hold up to one and a half MiB more of the machine's memory than it asks for. */
enum { HUGE_PAGE = 2 << 20 };

static void *default_alloc(void *user, size_t bytes)
{
    (void)user;
    if (bytes < HUGE_PAGE / 4)
        return malloc(bytes);

    bytes = (bytes + HUGE_PAGE - 1) & ~((size_t)HUGE_PAGE - 1);
    void *memory = NULL;
    if (posix_memalign(&memory, HUGE_PAGE, bytes) != 0)
        return NULL;
    (void)madvise(memory, bytes, MADV_HUGEPAGE); /* advice: refusal changes nothing */
    return memory;
}

static void default_free(void *user, void *memory)
{
    (void)user;
    free(memory);
}

const quire__allocator quire__allocator_default = {default_alloc, default_free, NULL};

quire_status quire__memory_take(const quire__allocator *allocator, size_t count, size_t size, const char *what,
                                void **memory)
{
    const size_t overhead = ALIGNMENT + sizeof(void *);
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2)
        return quire__fail(QUIRE_ENOMEM, "%zu x %zu bytes for %s are more than this machine can address", count, size,
                           what);

    char *raw = allocator->alloc(allocator->user, bytes + overhead);
    if (!raw)
        return quire__fail(QUIRE_ENOMEM, "no memory for %s: %zu bytes", what, bytes);

    uintptr_t address = ((uintptr_t)raw + sizeof(void *) + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1);
    char *aligned = raw + (address - (uintptr_t)raw);
    memcpy(aligned - sizeof(void *), &raw, sizeof(void *));
    memset(aligned, 0, bytes);
    *memory = aligned;
    return QUIRE_OK;
}

void quire__memory_give(const quire__allocator *allocator, void *memory)
{
    if (!memory)
        return;
    void *raw;
    memcpy(&raw, (char *)memory - sizeof(void *), sizeof(void *));
    allocator->free(allocator->user, raw);
}
