/* pack.cu: bf16 pages to packed slots and back, bit for bit. The format is in launch.h.
 *
 * K and V of a model have few exponents: the 16 most frequent of a unit cover all but one element in thousands, so
 * an element is its sign and mantissa, 8 bits, and a 4-bit code. (Exponents of weights and activations are known to
 * be compressible: NeuZip, Hao et al. 2024; DFloat11, Zhang et al. 2025, which use entropy coders. Codes of one
 * length give up a few percent of size for a decoder without any serial part.)
 *
 * Moves, per unit of n elements: pack 2n in and the slot out, unpack the slot in and 2n out; at 0.78 of raw
 * that is 3.56 bytes an element either way. Launch: a thread block a unit, or most_blocks of them that take
 * turns; 256 threads, each with up to eight 16-byte words of the unit in registers, so that the unit is read
 * once although pack passes over it twice.
 *
 * pack counts exponents in shared memory (increments by one of equal addresses are one operation there), ranks
 * the 256 counts, a thread each, and so knows before it writes whether the escapes fit. They are collected in
 * any order and written in that of their positions. There are no atomics outside shared memory.
 *
 * unpack asks for the payload together with the header: where it is depends on the launch only. It believes
 * nothing that it has not checked: escapes are in range and ascending before the first element is written.
 */
#include "common.cuh"

namespace qk
{

constexpr int PACK_THREADS = 256;
constexpr int PACK_WORDS = QUIRE__PACK_UNIT_MOST / 8 / PACK_THREADS; /* 16-byte words a thread */
constexpr uint32_t NO_CODE = 0x10;
constexpr unsigned PACK_LANES = 0xffffffffu;

static_assert(QUIRE__PACK_ESCAPES_MOST == PACK_THREADS, "a thread an escape");

/* Where a unit's elements and its slot are. */
struct pack_unit {
    unsigned char *elements, *slot;
    int count, words; /* elements, and 16-byte words of them */
    int bytes_at, codes_at, escapes_at;
    int most_escapes;
};

__device__ __forceinline__ pack_unit find_unit(const quire__pack_args &a, int unit, int units)
{
    const int64_t first = static_cast<int64_t>(unit % units) * a.unit_elements, left = a.page_bytes / 2 - first;
    pack_unit found;
    found.elements = a.arena + a.offsets[unit / units] + first * 2;
    found.slot = a.packed + static_cast<int64_t>(unit) * a.slot_bytes;
    found.count = left < a.unit_elements ? static_cast<int>(left) : a.unit_elements;
    found.words = found.count / 8;
    found.bytes_at = QUIRE__PACK_HEADER_BYTES;
    found.codes_at = found.bytes_at + found.count;
    found.escapes_at = found.codes_at + found.count / 2;
    found.most_escapes = min((a.slot_bytes - found.escapes_at) / 4, PACK_THREADS);
    return found;
}

__device__ __forceinline__ bool fits_stored(const quire__pack_args &a, const pack_unit &unit)
{
    return QUIRE__PACK_HEADER_BYTES + 2 * unit.count <= a.slot_bytes;
}

/* Of the units of a page that have something to say any may have the last word. */
__device__ __forceinline__ void store_status(const quire__pack_args &a, int index, int units, int32_t status)
{
    a.status[index] = status;
    if (status != QUIRE__PACK_DONE && a.page_status != nullptr)
        qk_store_relaxed(a.page_status + index / units, status);
}

/* ---- four elements at a time ------------------------------------------------------------------------- */

/* The exponents, and the signs with mantissas, of four elements, a byte each. */
__device__ __forceinline__ void split_four(uint32_t first, uint32_t second, uint32_t &exponents,
                                           uint32_t &bytes)
{
    const uint32_t low = __byte_perm(first, second, 0x6420), high = __byte_perm(first, second, 0x7531);
    exponents = (high & 0x7f7f7f7fu) << 1 | (low >> 7 & 0x01010101u);
    bytes = (high & 0x80808080u) | (low & 0x7f7f7f7fu);
}

/* Two elements from the low or the high halves of four exponents and four bytes. */
template <bool HIGH> __device__ __forceinline__ uint32_t join_two(uint32_t exponents, uint32_t bytes)
{
    constexpr uint32_t spread = HIGH ? 0x4342 : 0x4140;
    const uint32_t e = __byte_perm(exponents, 0, spread), b = __byte_perm(bytes, 0, spread);
    return e << 7 | (b & 0x007f007fu) | (b & 0x00800080u) << 8;
}

/* The exponents of four codes: a byte permutation looks up eight entries, the code's high bit picks the half. */
__device__ __forceinline__ uint32_t look_up_four(const uint4 &table, uint32_t codes)
{
    const uint32_t entry = codes & 0x7777u;
    const uint32_t low = __byte_perm(table.x, table.y, entry), high = __byte_perm(table.z, table.w, entry);
    const uint32_t upper = __byte_perm(0x0000ff00u, 0, codes >> 3 & 0x1111u);
    return (low & ~upper) | (high & upper);
}

/* ---- pack -------------------------------------------------------------------------------------------- */

struct pack_shared {
    uint4 counts[64]; /* of 256 exponents */
    uint32_t escapes[QUIRE__PACK_ESCAPES_MOST];
    unsigned char codes[256];
    unsigned char exponents[16];
    unsigned covered, escaped;
};

__device__ __forceinline__ uint32_t *exponent_counts(pack_shared &shared)
{
    return reinterpret_cast<uint32_t *>(shared.counts);
}

__device__ __forceinline__ void count_exponents(pack_shared &shared, const uint32_t (&words)[4])
{
    QK_UNROLL
    for (int i = 0; i < 4; i++) {
        atomicAdd(&exponent_counts(shared)[words[i] >> 7 & 0xffu], 1u);
        atomicAdd(&exponent_counts(shared)[words[i] >> 23 & 0xffu], 1u);
    }
}

/* This thread's exponent gets its code, if it is among the 16 most frequent. */
__device__ __forceinline__ void rank_exponent(pack_shared &shared)
{
    const uint32_t exponent = threadIdx.x, mine = exponent_counts(shared)[exponent];
    const uint32_t key = mine << 8 | (255 - exponent);
    uint32_t rank = 0;
    if (__any_sync(PACK_LANES, mine != 0)) { /* most warps have no exponent that occurs */
        for (uint32_t i = 0; i < 64; i++) {
            const uint4 four = shared.counts[i];
            rank += (four.x << 8 | (255 - 4 * i)) > key;
            rank += (four.y << 8 | (254 - 4 * i)) > key;
            rank += (four.z << 8 | (253 - 4 * i)) > key;
            rank += (four.w << 8 | (252 - 4 * i)) > key;
        }
    }
    const bool coded = mine != 0 && rank < 16;
    shared.codes[exponent] = static_cast<unsigned char>(coded ? rank : NO_CODE);
    if (coded) {
        shared.exponents[rank] = static_cast<unsigned char>(exponent);
        atomicAdd(&shared.covered, mine);
    }
}

/* Eight elements to their slot; those without a code are collected. */
__device__ __forceinline__ void code_word(pack_shared &shared, const pack_unit &unit, const uint32_t (&words)[4],
                                          int at)
{
    uint32_t bytes[2], codes = 0, missing = 0;
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        uint32_t exponents;
        split_four(words[2 * half], words[2 * half + 1], exponents, bytes[half]);
        QK_UNROLL
        for (int i = 0; i < 4; i++) {
            const uint32_t code = shared.codes[exponents >> 8 * i & 0xffu];
            codes |= (code & 15) << (half * 16 + i * 4);
            missing |= code >> 4 << (half * 4 + i);
        }
    }
    *reinterpret_cast<uint2 *>(unit.slot + unit.bytes_at + at * 8) = make_uint2(bytes[0], bytes[1]);
    *reinterpret_cast<uint32_t *>(unit.slot + unit.codes_at + at * 4) = codes;
    if (missing == 0)
        return;
    QK_UNROLL
    for (int i = 0; i < 8; i++) {
        if (missing >> i & 1) {
            const uint32_t element = words[i / 2] >> (i % 2 * 16) & 0xffffu;
            shared.escapes[atomicAdd(&shared.escaped, 1u)] = static_cast<uint32_t>(at * 8 + i) | element << 16;
        }
    }
}

/* This thread's escape to its place among the others. */
__device__ __forceinline__ void store_escape(const pack_shared &shared, const pack_unit &unit, int escapes)
{
    const int thread = static_cast<int>(threadIdx.x);
    if (thread >= escapes)
        return;
    const uint32_t mine = shared.escapes[thread];
    int before = 0;
    for (int i = 0; i < escapes; i++)
        before += (shared.escapes[i] & 0xffffu) < (mine & 0xffffu);
    *reinterpret_cast<uint32_t *>(unit.slot + unit.escapes_at + before * 4) = mine;
}

/* Header, and zeros from `end` on. */
__device__ __forceinline__ void store_rest(const quire__pack_args &a, const pack_shared &shared,
                                           const pack_unit &unit, uint32_t kind, uint32_t escapes, int end)
{
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0)
        store16(unit.slot, make_uint4(QUIRE__PACK_MAGIC, static_cast<uint32_t>(unit.count), kind, escapes));
    if (thread < 16)
        unit.slot[16 + thread] = kind == QUIRE__PACK_CODED ? shared.exponents[thread] : 0;
    for (int at = end + thread * 4; at < a.slot_bytes; at += PACK_THREADS * 4)
        *reinterpret_cast<uint32_t *>(unit.slot + at) = 0;
}

__global__ void __launch_bounds__(PACK_THREADS, 4) pack_kernel(const quire__pack_args a, int units, int total)
{
    QK_SHARED(pack_shared, shared);
    const int thread = static_cast<int>(threadIdx.x);
    for (int index = static_cast<int>(blockIdx.x); index < total; index += static_cast<int>(gridDim.x)) {
        const pack_unit unit = find_unit(a, index, units);
        uint4 raw[PACK_WORDS];
        QK_UNROLL
        for (int i = 0; i < PACK_WORDS; i++) {
            const int at = i * PACK_THREADS + thread;
            raw[i] = at < unit.words ? __ldcs(reinterpret_cast<const uint4 *>(unit.elements) + at)
                                     : make_uint4(0, 0, 0, 0);
        }
        exponent_counts(shared)[thread] = 0;
        if (thread < 16)
            shared.exponents[thread] = 0;
        if (thread == 0)
            shared.covered = shared.escaped = 0;
        __syncthreads();
        QK_UNROLL
        for (int i = 0; i < PACK_WORDS; i++) {
            const uint32_t words[4] = {raw[i].x, raw[i].y, raw[i].z, raw[i].w};
            if (i * PACK_THREADS + thread < unit.words)
                count_exponents(shared, words);
        }
        __syncthreads();
        rank_exponent(shared);
        __syncthreads();
        const int escapes = unit.count - static_cast<int>(shared.covered);
        const bool coded = escapes <= unit.most_escapes, stored = !coded && fits_stored(a, unit);
        QK_UNROLL
        for (int i = 0; i < PACK_WORDS; i++) {
            const int at = i * PACK_THREADS + thread;
            const uint32_t words[4] = {raw[i].x, raw[i].y, raw[i].z, raw[i].w};
            if (coded && at < unit.words)
                code_word(shared, unit, words, at);
            if (stored && at < unit.words)
                store16(unit.slot + QUIRE__PACK_HEADER_BYTES + at * 16, raw[i]);
        }
        __syncthreads(); /* the escapes are there */
        if (coded) {
            store_escape(shared, unit, escapes);
            store_rest(a, shared, unit, QUIRE__PACK_CODED, static_cast<uint32_t>(escapes),
                       unit.escapes_at + escapes * 4);
        } else {
            store_rest(a, shared, unit, stored ? QUIRE__PACK_STORED : QUIRE__PACK_ABSENT, 0,
                       QUIRE__PACK_HEADER_BYTES + (stored ? unit.count * 2 : 0));
        }
        if (thread == 0)
            store_status(a, index, units, coded || stored ? QUIRE__PACK_DONE : QUIRE__PACK_RAW);
        __syncthreads(); /* the next unit begins anew */
    }
}

/* ---- unpack ------------------------------------------------------------------------------------------ */

/* Could pack have written this header for this unit? */
__device__ __forceinline__ bool sound_header(const quire__pack_args &a, const pack_unit &unit, const uint4 &head,
                                             const uint4 &table)
{
    if (head.x != QUIRE__PACK_MAGIC || head.y != static_cast<uint32_t>(unit.count))
        return false;
    if (head.z == QUIRE__PACK_CODED)
        return head.w <= static_cast<uint32_t>(unit.most_escapes);
    const bool kind = head.z == QUIRE__PACK_ABSENT || (head.z == QUIRE__PACK_STORED && fits_stored(a, unit));
    return kind && head.w == 0 && (table.x | table.y | table.z | table.w) == 0;
}

/* This thread's escape, and whether it may be one: in the unit, behind the one before it. */
__device__ __forceinline__ bool load_escape(const pack_unit &unit, int escapes, uint32_t &escape)
{
    const int thread = static_cast<int>(threadIdx.x);
    if (thread >= escapes)
        return true;
    const uint32_t *list = reinterpret_cast<const uint32_t *>(unit.slot + unit.escapes_at);
    escape = list[thread];
    return (escape & 0xffffu) < static_cast<uint32_t>(unit.count) &&
           (thread == 0 || (list[thread - 1] & 0xffffu) < (escape & 0xffffu));
}

__device__ __forceinline__ uint4 decode_word(const uint4 &table, const uint2 &bytes, uint32_t codes)
{
    const uint32_t low = look_up_four(table, codes), high = look_up_four(table, codes >> 16);
    return make_uint4(join_two<false>(low, bytes.x), join_two<true>(low, bytes.x),
                      join_two<false>(high, bytes.y), join_two<true>(high, bytes.y));
}

__device__ __forceinline__ void copy_stored(const pack_unit &unit)
{
    for (int at = static_cast<int>(threadIdx.x); at < unit.words; at += PACK_THREADS)
        store16(unit.elements + at * 16, load16(unit.slot + QUIRE__PACK_HEADER_BYTES + at * 16));
}

__global__ void __launch_bounds__(PACK_THREADS, 4) unpack_kernel(const quire__pack_args a, int units, int total)
{
    const int thread = static_cast<int>(threadIdx.x);
    for (int index = static_cast<int>(blockIdx.x); index < total; index += static_cast<int>(gridDim.x)) {
        const pack_unit unit = find_unit(a, index, units);
        const uint4 head = load16(unit.slot), table = load16(unit.slot + 16);
        uint2 bytes[PACK_WORDS];
        uint32_t codes[PACK_WORDS];
        QK_UNROLL
        for (int i = 0; i < PACK_WORDS; i++) {
            const int at = i * PACK_THREADS + thread;
            bytes[i] = make_uint2(0, 0);
            codes[i] = 0;
            if (at < unit.words) {
                bytes[i] = __ldcs(reinterpret_cast<const uint2 *>(unit.slot + unit.bytes_at) + at);
                codes[i] = __ldcs(reinterpret_cast<const uint32_t *>(unit.slot + unit.codes_at) + at);
            }
        }
        const bool coded = head.z == QUIRE__PACK_CODED;
        bool sound = sound_header(a, unit, head, table);
        const int escapes = sound && coded ? static_cast<int>(head.w) : 0;
        uint32_t escape = 0;
        const bool allowed = load_escape(unit, escapes, escape);
        sound = !__syncthreads_or(!allowed) && sound;
        if (sound && coded) {
            QK_UNROLL
            for (int i = 0; i < PACK_WORDS; i++) {
                const int at = i * PACK_THREADS + thread;
                if (at < unit.words)
                    store16(unit.elements + at * 16, decode_word(table, bytes[i], codes[i]));
            }
            __syncthreads(); /* escapes go over what was decoded in their place */
            if (thread < escapes)
                *reinterpret_cast<unsigned short *>(unit.elements + (escape & 0xffffu) * 2) =
                    static_cast<unsigned short>(escape >> 16);
        } else if (sound && head.z == QUIRE__PACK_STORED) {
            copy_stored(unit);
        }
        if (thread == 0)
            store_status(a, index, units,
                         !sound                         ? QUIRE__PACK_CORRUPT
                         : head.z == QUIRE__PACK_ABSENT ? QUIRE__PACK_RAW
                                                        : QUIRE__PACK_DONE);
    }
}

/* ---- launch ------------------------------------------------------------------------------------------ */

template <class Kernel>
static quire_status pack_launch(Kernel kernel, const quire__pack_args &args, void *stream)
{
    if (args.count < 0 || args.page_bytes < 0 || args.most_blocks < 0)
        return QUIRE_EINVAL;
    if (args.count == 0 || args.page_bytes == 0)
        return QUIRE_OK;
    if (!args.arena || !args.packed || !args.offsets || !args.status || !aligned(args.arena, 16) ||
        !aligned(args.packed, 16) || args.page_bytes % 64 != 0)
        return QUIRE_EINVAL;
    if (args.unit_elements < QUIRE__PACK_UNIT_LEAST || args.unit_elements > QUIRE__PACK_UNIT_MOST ||
        args.unit_elements % 64 != 0 || args.slot_bytes % 16 != 0 ||
        args.slot_bytes < QUIRE__PACK_HEADER_BYTES + args.unit_elements / 2 * 3)
        return QUIRE_EINVAL;
    const int64_t units = (args.page_bytes / 2 + args.unit_elements - 1) / args.unit_elements;
    if (units > INT32_MAX / args.count)
        return QUIRE_EINVAL;
    const int total = static_cast<int>(units) * args.count;
    const int blocks = args.most_blocks > 0 && args.most_blocks < total ? args.most_blocks : total;
    QK_LAUNCH(kernel, dim3(static_cast<unsigned>(blocks)), dim3(PACK_THREADS), 0, stream, args,
              static_cast<int>(units), total);
    return launch_status();
}

} /* namespace qk */

extern "C" quire_status quire__cuda_pack(const quire__pack_args *args, void *stream)
{
    return qk::pack_launch(qk::pack_kernel, *args, stream);
}

extern "C" quire_status quire__cuda_unpack(const quire__pack_args *args, void *stream)
{
    return qk::pack_launch(qk::unpack_kernel, *args, stream);
}
