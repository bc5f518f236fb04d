/* host_pack.c: packing and unpacking a unit, over loops that know the instruction set. */
#include "device/host_pack.h"

#include <stdbool.h>
#include <string.h>

#include "base/status.h"
#include "device/host_pack_kernel.h"

/* Where the parts of a unit's slot are. */
typedef struct slot_map {
    int32_t count; /* elements */
    int32_t slot_bytes, bytes_at, codes_at, escapes_at, most_escapes;
} slot_map;

static slot_map slot_of(int32_t count, int32_t slot_bytes)
{
    slot_map map = {.count = count, .slot_bytes = slot_bytes, .bytes_at = QUIRE__PACK_HEADER_BYTES};

    map.codes_at = map.bytes_at + count;
    map.escapes_at = map.codes_at + count / 2;
    map.most_escapes = (slot_bytes - map.escapes_at) / 4;
    if (map.most_escapes > QUIRE__PACK_ESCAPES_MOST)
        map.most_escapes = QUIRE__PACK_ESCAPES_MOST;
    return map;
}

static bool fits_stored(const slot_map *map)
{
    return QUIRE__PACK_HEADER_BYTES + 2 * map->count <= map->slot_bytes;
}

/* ---- one element at a time ----------------------------------------------------------------------------------- */

static uint32_t element_at(const unsigned char *elements, int32_t i)
{
    uint16_t element;
    memcpy(&element, elements + 2 * (size_t)i, sizeof element);
    return element;
}

static void put_element(unsigned char *elements, uint32_t i, uint32_t element)
{
    uint16_t half = (uint16_t)element;
    memcpy(elements + 2 * (size_t)i, &half, sizeof half);
}

/* Runs of equal exponents would make each count wait for the last one: four tables take turns. */
static void count_plain(const unsigned char *elements, int32_t count, uint32_t counts[256], unsigned char *scratch)
{
    uint32_t tables[4][256] = {{0}};
    (void)scratch;
    for (int32_t i = 0; i < count; i += 4)
        for (int32_t j = 0; j < 4; j++)
            tables[j][element_at(elements, i + j) >> 7 & 0xffu]++;
    for (int32_t e = 0; e < 256; e++)
        counts[e] += tables[0][e] + tables[1][e] + tables[2][e] + tables[3][e];
}

static int32_t code_plain(const unsigned char *elements, int32_t count, const uint8_t code_of[256],
                          unsigned char *bytes, unsigned char *codes, unsigned char *escapes)
{
    int32_t missing = 0;
    for (int32_t i = 0; i < count; i++) {
        uint32_t element = element_at(elements, i), code = code_of[element >> 7 & 0xffu];
        bytes[i] = (unsigned char)((element >> 8 & 0x80u) | (element & 0x7fu));
        if (i % 2 == 0)
            codes[i / 2] = (unsigned char)(code & 15u);
        else
            codes[i / 2] |= (unsigned char)((code & 15u) << 4);
        if (code == QUIRE__PACK_NO_CODE) {
            uint32_t escape = (uint32_t)i | element << 16;
            memcpy(escapes + 4 * (size_t)missing++, &escape, sizeof escape);
        }
    }
    return missing;
}

static void decode_plain(const unsigned char *bytes, const unsigned char *codes, int32_t count,
                         const uint8_t exponents[16], unsigned char *elements)
{
    for (int32_t i = 0; i < count; i++) {
        uint32_t byte = bytes[i], exponent = exponents[codes[i / 2] >> (i % 2 * 4) & 15];
        put_element(elements, (uint32_t)i, (byte & 0x80u) << 8 | exponent << 7 | (byte & 0x7fu));
    }
}

const quire__pack_loops quire__pack_loops_baseline = {"baseline", count_plain, code_plain, decode_plain};

/* ---- a unit -------------------------------------------------------------------------------------------------- */

/* The 16 most frequent exponents, the lesser first among equals, and the code of each exponent; how many elements they
 * cover. */
static int32_t choose_exponents(uint32_t counts[256], uint8_t exponents[16], uint8_t code_of[256])
{
    uint8_t present[256];
    int32_t kinds = 0;
    uint32_t covered = 0;
    for (int32_t e = 0; e < 256; e++)
        if (counts[e] > 0)
            present[kinds++] = (uint8_t)e;
    memset(code_of, QUIRE__PACK_NO_CODE, 256);
    for (uint8_t code = 0; code < 16 && code < kinds; code++) {
        uint8_t most = present[0];
        for (int32_t i = 1; i < kinds; i++)
            if (counts[present[i]] > counts[most])
                most = present[i];
        covered += counts[most];
        counts[most] = 0; /* not chosen again: as many kinds have a count as codes are left */
        exponents[code] = most;
        code_of[most] = code;
    }
    return (int32_t)covered;
}

static quire__pack_status pack_unit(const quire__pack_loops *loops, const unsigned char *elements,
                                    unsigned char *slot, const slot_map *map)
{
    quire__pack_header header = {.magic = QUIRE__PACK_MAGIC, .elements = (uint32_t)map->count};
    uint32_t counts[256] = {0};
    uint8_t code_of[256], exponents[16] = {0};
    int32_t end = QUIRE__PACK_HEADER_BYTES;

    loops->count(elements, map->count, counts, slot + map->bytes_at); /* what is scratch now is written below */
    int32_t escapes = map->count - choose_exponents(counts, exponents, code_of);
    if (escapes <= map->most_escapes) {
        header.kind = QUIRE__PACK_CODED;
        memcpy(header.exponents, exponents, sizeof exponents);
        header.escapes = (uint32_t)loops->code(elements, map->count, code_of, slot + map->bytes_at,
                                               slot + map->codes_at, slot + map->escapes_at);
        end = map->escapes_at + 4 * escapes;
    } else if (fits_stored(map)) {
        header.kind = QUIRE__PACK_STORED;
        memcpy(slot + end, elements, 2 * (size_t)map->count);
        end += 2 * map->count;
    } else {
        header.kind = QUIRE__PACK_ABSENT;
    }
    memcpy(slot, &header, sizeof header);
    memset(slot + end, 0, (size_t)(map->slot_bytes - end));
    return header.kind == QUIRE__PACK_ABSENT ? QUIRE__PACK_RAW : QUIRE__PACK_DONE;
}

static bool sound_header(const quire__pack_header *header, const slot_map *map)
{
    static const uint8_t none[16];

    if (header->magic != QUIRE__PACK_MAGIC || header->elements != (uint32_t)map->count)
        return false;
    if (header->kind == QUIRE__PACK_CODED)
        return header->escapes <= (uint32_t)map->most_escapes;
    return (header->kind == QUIRE__PACK_ABSENT || (header->kind == QUIRE__PACK_STORED && fits_stored(map))) &&
           header->escapes == 0 && memcmp(header->exponents, none, sizeof none) == 0;
}

static uint32_t escape_at(const unsigned char *escapes, uint32_t i)
{
    uint32_t escape;
    memcpy(&escape, escapes + 4 * (size_t)i, sizeof escape);
    return escape;
}

static bool sound_escapes(const unsigned char *escapes, uint32_t count, const slot_map *map)
{
    int64_t last = -1;
    for (uint32_t i = 0; i < count; i++) {
        int64_t position = escape_at(escapes, i) & 0xffffu;
        if (position <= last || position >= map->count)
            return false;
        last = position;
    }
    return true;
}

static quire__pack_status unpack_unit(const quire__pack_loops *loops, unsigned char *elements,
                                      const unsigned char *slot, const slot_map *map)
{
    quire__pack_header header;
    const unsigned char *escapes = slot + map->escapes_at;

    memcpy(&header, slot, sizeof header);
    if (!sound_header(&header, map) || !sound_escapes(escapes, header.escapes, map))
        return QUIRE__PACK_CORRUPT;
    if (header.kind == QUIRE__PACK_ABSENT)
        return QUIRE__PACK_RAW;
    if (header.kind == QUIRE__PACK_STORED) {
        memcpy(elements, slot + QUIRE__PACK_HEADER_BYTES, 2 * (size_t)map->count);
        return QUIRE__PACK_DONE;
    }
    loops->decode(slot + map->bytes_at, slot + map->codes_at, map->count, header.exponents, elements);
    for (uint32_t i = 0; i < header.escapes; i++) {
        uint32_t escape = escape_at(escapes, i);
        put_element(elements, escape & 0xffffu, escape >> 16);
    }
    return QUIRE__PACK_DONE;
}

/* ---- pages --------------------------------------------------------------------------------------------------- */

typedef struct pack_job {
    const quire__pack_loops *loops;
    const quire__pack_args *args;
    int64_t units; /* of a page */
    bool unpack;
} pack_job;

static int64_t units_of(const quire__pack_args *args)
{
    return (args->page_bytes / 2 + args->unit_elements - 1) / args->unit_elements;
}

static void pack_item(void *arg, size_t item)
{
    const pack_job *job = arg;
    const quire__pack_args *args = job->args;
    int64_t page = (int64_t)item / job->units, first = (int64_t)item % job->units * args->unit_elements;
    int64_t left = args->page_bytes / 2 - first;
    slot_map map = slot_of(left < args->unit_elements ? (int32_t)left : args->unit_elements, args->slot_bytes);
    unsigned char *elements = args->arena + args->offsets[page] + 2 * first;
    unsigned char *slot = args->packed + (int64_t)item * args->slot_bytes;

    int32_t status = job->unpack ? unpack_unit(job->loops, elements, slot, &map)
                                 : pack_unit(job->loops, elements, slot, &map);
    args->status[item] = status;
    if (status != QUIRE__PACK_DONE && args->page_status != NULL)
        __atomic_store_n(&args->page_status[page], status, __ATOMIC_RELAXED); /* other threads may have others of its units */
}

static void run_plain(const quire__pack_args *args, bool unpack)
{
    pack_job job = {&quire__pack_loops_baseline, args, units_of(args), unpack};
    for (int64_t i = 0; i < args->count * job.units; i++)
        pack_item(&job, (size_t)i);
}

void quire__host_pack(const quire__pack_args *args)
{
    run_plain(args, false);
}

void quire__host_unpack(const quire__pack_args *args)
{
    run_plain(args, true);
}

static const quire__pack_loops *loops_best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
        return &quire__pack_loops_avx2;
#endif
    return &quire__pack_loops_baseline;
}

const char *quire__host_pack_isa(void)
{
    return loops_best()->isa;
}

static quire_status check(const quire__pack_args *args)
{
    if (args->count < 0 || args->page_bytes < 0 || args->page_bytes % 64 != 0)
        return quire__fail(QUIRE_EINVAL, "pack: pages of %lld bytes; a page must be a multiple of 64",
                           (long long)args->page_bytes);
    if (args->unit_elements < QUIRE__PACK_UNIT_LEAST || args->unit_elements > QUIRE__PACK_UNIT_MOST ||
        args->unit_elements % 64 != 0)
        return quire__fail(QUIRE_EINVAL, "pack: units of %d elements; they must be a multiple of 64 in %d..%d",
                           args->unit_elements, QUIRE__PACK_UNIT_LEAST, QUIRE__PACK_UNIT_MOST);
    if (args->slot_bytes % 16 != 0 || args->slot_bytes < QUIRE__PACK_HEADER_BYTES + args->unit_elements / 2 * 3)
        return quire__fail(QUIRE_EINVAL, "pack: slots of %d bytes; units of %d elements need a multiple of 16, at least "
                           "%d", args->slot_bytes, args->unit_elements,
                           QUIRE__PACK_HEADER_BYTES + args->unit_elements / 2 * 3);
    return QUIRE_OK;
}

static quire_status run(quire__parallel *parallel, const quire__pack_args *args, bool unpack)
{
    if (args->count == 0 || args->page_bytes == 0)
        return QUIRE_OK;
    QUIRE__TRY(check(args));
    pack_job job = {loops_best(), args, units_of(args), unpack};
    size_t items = (size_t)(args->count * job.units);
    if (items < 4) { /* less than a thread takes to wake */
        for (size_t i = 0; i < items; i++)
            pack_item(&job, i);
    } else {
        quire__parallel_for(parallel, items, pack_item, &job);
    }
    return QUIRE_OK;
}

quire_status quire__host_pack_run(quire__parallel *parallel, const quire__pack_args *args)
{
    return run(parallel, args, false);
}

quire_status quire__host_unpack_run(quire__parallel *parallel, const quire__pack_args *args)
{
    return run(parallel, args, true);
}

/* ---- shape --------------------------------------------------------------------------------------------------- */

quire_status quire__pack_shape_make(quire__pack_shape *shape, int64_t page_bytes, int64_t part_bytes)
{
    enum { SLOT_PERCENT = 78 };
    int64_t elements = page_bytes / 2, part = part_bytes / 2, unit;

    if (page_bytes <= 0 || page_bytes % 64 != 0)
        return quire__fail(QUIRE_EINVAL, "pages of %lld bytes cannot be packed; a page must be a multiple of 64",
                           (long long)page_bytes);
    unit = (elements + QUIRE__PACK_UNIT_MOST - 1) / QUIRE__PACK_UNIT_MOST; /* as few as can be, and as equal */
    unit = ((elements + unit - 1) / unit + 63) / 64 * 64;
    unit = unit > QUIRE__PACK_UNIT_LEAST ? unit : QUIRE__PACK_UNIT_LEAST;
    if (part >= QUIRE__PACK_UNIT_LEAST) {
        int64_t cuts = (part + QUIRE__PACK_UNIT_MOST - 1) / QUIRE__PACK_UNIT_MOST;
        while (cuts < part / QUIRE__PACK_UNIT_LEAST && part % (64 * cuts) != 0)
            cuts++;
        unit = part % (64 * cuts) == 0 ? part / cuts : unit;
    }
    shape->unit_elements = (int32_t)unit;
    shape->units = (int32_t)((elements + unit - 1) / unit);
    shape->slot_bytes = (int32_t)(2 * unit * SLOT_PERCENT / 100 / 16 * 16);
    shape->packed_bytes = (int64_t)shape->units * shape->slot_bytes;
    return QUIRE_OK;
}
