#include "peer/wire.h"

#include "base/hash.h"
#include "base/status.h"

quire_status quire__wire_compare(const quire__wire_meeting *ours, const quire__wire_meeting *theirs)
{
    const struct {
        const char *name;
        uint64_t ours, theirs;
    } fields[] = {{"protocol version", ours->version, theirs->version},
                  {"dtype", ours->dtype, theirs->dtype},
                  {"block_tokens", ours->block_tokens, theirs->block_tokens},
                  {"layers", ours->layers, theirs->layers},
                  {"kv_heads", ours->kv_heads, theirs->kv_heads},
                  {"head_dim", ours->head_dim, theirs->head_dim},
                  {"bytes of a block", ours->block_bytes, theirs->block_bytes},
                  {"checksum of the scales", ours->scales, theirs->scales}};

    if (theirs->magic != ours->magic)
        return quire__fail(QUIRE_EINVAL, "the other side is no peer of this byte order (it began with 0x%016llx)",
                           (unsigned long long)theirs->magic);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (fields[i].ours != fields[i].theirs)
            return quire__fail(QUIRE_EINVAL, "the caches differ in %s: %llu here, %llu there; blocks travel between equal "
                               "ones only", fields[i].name, (unsigned long long)fields[i].ours,
                               (unsigned long long)fields[i].theirs);
    return QUIRE_OK;
}

uint64_t quire__wire_checksum(uint64_t index, const void *bytes, size_t count)
{
    uint64_t mixed = quire__checksum(bytes, count) ^ (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    return mixed != 0 ? mixed : 1;
}
