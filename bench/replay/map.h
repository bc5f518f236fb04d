/* map.h: 64-bit keys to 32-bit numbers, open addressing. */
#ifndef REPLAY_MAP_H
#define REPLAY_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct replay_map {
    uint64_t *keys;
    uint32_t *values; /* REPLAY_MAP_NONE: the place is empty */
    size_t places, count; /* places: a power of two, or 0 */
} replay_map;

#define REPLAY_MAP_NONE UINT32_MAX

/* The value of a key, or REPLAY_MAP_NONE. */
uint32_t replay_map_find(const replay_map *map, uint64_t key);
/* The key must be new, the value not REPLAY_MAP_NONE. False: no memory; the map is as before. */
bool replay_map_add(replay_map *map, uint64_t key, uint32_t value);
/* Bytes that the map would take with one key more. */
size_t replay_map_bytes(const replay_map *map);
void replay_map_close(replay_map *map);

#endif
