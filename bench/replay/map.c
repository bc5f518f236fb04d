#include "map.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_PLACES = 1024, BYTES_A_PLACE = sizeof(uint64_t) + sizeof(uint32_t) };

static size_t place_of(const replay_map *map, uint64_t key)
{
    size_t mask = map->places - 1;
    uint64_t mixed = (key ^ key >> 32) * 0x9e3779b97f4a7c15u;
    size_t at = (size_t)(mixed >> 20) & mask;
    while (map->values[at] != REPLAY_MAP_NONE && map->keys[at] != key)
        at = (at + 1) & mask;
    return at;
}

uint32_t replay_map_find(const replay_map *map, uint64_t key)
{
    return map->places == 0 ? REPLAY_MAP_NONE : map->values[place_of(map, key)];
}

/* At most half full: one more key may mean twice the places. */
static size_t places_for(const replay_map *map)
{
    if (map->places == 0)
        return FIRST_PLACES;
    return map->count + 1 > map->places / 2 ? 2 * map->places : map->places;
}

size_t replay_map_bytes(const replay_map *map)
{
    return places_for(map) * BYTES_A_PLACE;
}

static bool grow(replay_map *map, size_t places)
{
    replay_map more = {malloc(places * sizeof(uint64_t)), malloc(places * sizeof(uint32_t)), places,
                       map->count};
    if (!more.keys || !more.values) {
        replay_map_close(&more);
        return false;
    }
    memset(more.values, 0xff, places * sizeof(uint32_t));
    for (size_t i = 0; i < map->places; i++) {
        if (map->values[i] == REPLAY_MAP_NONE)
            continue;
        size_t at = place_of(&more, map->keys[i]);
        more.keys[at] = map->keys[i];
        more.values[at] = map->values[i];
    }
    replay_map_close(map);
    *map = more;
    return true;
}

bool replay_map_add(replay_map *map, uint64_t key, uint32_t value)
{
    size_t places = places_for(map);
    if (places != map->places && !grow(map, places))
        return false;
    size_t at = place_of(map, key);
    map->keys[at] = key;
    map->values[at] = value;
    map->count++;
    return true;
}

void replay_map_close(replay_map *map)
{
    free(map->keys);
    free(map->values);
    *map = (replay_map){0};
}
