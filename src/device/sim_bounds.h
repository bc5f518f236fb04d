/* sim_bounds.h: would this kernel touch memory that is not the device's? The sim device asks before it runs one, so
 * that a table read too early is a failed device, as on a GPU, and not a crash of the test. */
#ifndef QUIRE_SIM_BOUNDS_H
#define QUIRE_SIM_BOUNDS_H

#include <stdbool.h>

#include "kernels/launch.h"

typedef struct quire__sim_memory {
    struct quire__sim_memory *next;
    unsigned char *base;
    size_t bytes;
    bool pinned;
    size_t granule; /* 0: all of it is there; else `mapped` says for each granule whether it is */
    bool *mapped;
} quire__sim_memory;

/* Bytes from `address` to the end of the allocation it is in; 0: in none. Holes in a reserved range are not looked at. */
size_t quire__sim_reach(const quire__sim_memory *memory, const void *address);
/* Is there memory behind all of [address, address + bytes), in one allocation? */
bool quire__sim_there(const quire__sim_memory *memory, const void *address, size_t bytes);
/* Is the address in pinned memory? */
bool quire__sim_is_pinned(const quire__sim_memory *memory, const void *address);
/* NULL, or what the kernel would reach outside. */
const char *quire__sim_bounds(const quire__sim_memory *memory, quire__kernel kernel, const quire__kernel_args *args);

#endif
