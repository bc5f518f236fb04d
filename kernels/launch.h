/* launch.h: every kernel as a C function over one plain struct.
 *
 * Three things speak this interface: the CUDA launchers in kernels/ (.cu), the same sources under the emulator of
 * tests/emulator, and the scalar twins in src/device/host_ops.c, which are the oracle of both. Structs are copied
 * when a launch is enqueued, so they may live on the stack; the arrays they point to must stay until it has run.
 *
 * Pointers are device addresses, strides of the cache are bytes, strides of tensors are elements. A launcher checks
 * its arguments, launches on the stream, and returns; it never allocates and never synchronises.
 */
#ifndef QUIRE_KERNELS_LAUNCH_H
#define QUIRE_KERNELS_LAUNCH_H

#include "quire/quire.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where K and V of (block, layer, head, token) are: see quire_view. A block of all layers is
 * [layer][K,V][kv_head], and of a head the rows of its tokens, then, in formats that have them, their scales. What codes
 * and scales mean is in src/device/host_formats.h. */
typedef struct quire__pages {
    unsigned char *arena;
    int64_t block_stride, layer_stride, kv_stride, head_stride, token_stride; /* bytes */
    int32_t block_tokens, kv_heads, head_dim;
    quire_dtype dtype;
    const float *scales; /* of this layer: [2][kv_heads], FP8 only; NULL: none were given */
    int64_t scale_offset; /* bytes from a head's first row to the scales (f16) of its first token */
    int32_t scale_stride; /* bytes from a token's scales to the next's; 0: the page has none */
    int32_t scale_group;  /* elements that share a scale, int4: a word of scales */
    int32_t rotation;     /* K is rotated in runs of so many dims, and q is to be; 0: neither */
    int32_t value_dim;    /* 0: K and V. Else latent: one row a token, whose first value_dim elements are V as well;
                           * kv_heads is 1, kv_stride 0, no scales */
} quire__pages;

/* A rotary position embedding: see quire_rope. */
typedef struct quire__rope {
    const float *table; /* [positions][dims / 2][2]; NULL: none */
    const int32_t *positions; /* [tokens] */
    int32_t dims, interleaved;
    quire_tensor q, q_out; /* [tokens][heads][head_dim]; q.data NULL: no q */
} quire__rope;

/* New K and V into their slots; K, and q into q_out, turned by their positions. A slot below 0 is skipped, its q is not.
 * Latent: k is what comes first in a row, [tokens][1][value_dim], and v the rest of it, [tokens][1][head_dim - value_dim];
 * nothing is turned. */
typedef struct quire__append_args {
    quire__pages pages;
    int32_t layer, tokens;
    quire_tensor k, v; /* [tokens][kv_heads][head_dim] */
    const int64_t *slots;
    quire__rope rope;
} quire__append_args;

typedef struct quire__block_pair {
    int32_t source, destination;
} quire__block_pair;

/* Blocks to other blocks of the arena, whole, or the first tokens of each of their rows: K or V of a layer and head. No
 * destination may be a source or another destination of the call. At most 32 GiB a pair. */
typedef struct quire__block_copy_args {
    unsigned char *arena;
    int64_t block_stride, block_bytes; /* bytes: a multiple of 16 */
    const quire__block_pair *pairs;
    int32_t count;
    const int32_t *tokens;           /* [count]: of each row of a pair; NULL: whole blocks, and the rest is unused */
    int64_t row_stride, token_bytes; /* multiples of 16 */
    int32_t rows, most_tokens;       /* of a block; at least every one of `tokens` */
} quire__block_copy_args;

/* gather: pieces of the arena side by side into staging; scatter: the way back. At most 32 GiB in all. */
typedef struct quire__pieces_args {
    unsigned char *arena, *staging;
    const int64_t *offsets; /* of the pieces in the arena, bytes, multiples of 16 */
    int64_t piece_bytes;    /* a multiple of 16 */
    int32_t count;
} quire__pieces_args;

/* Blocks of one format to blocks of another, all rows of `layers` layers from 0 on: one side is f32, f16 or bf16, the other
 * is not. Both have the same block_tokens, kv_heads and head_dim, and scales, where given, [layers][2][kv_heads]. */
typedef struct quire__convert_args {
    quire__pages from, to;
    const quire__block_pair *pairs; /* source: of `from`; destination: of `to` */
    int32_t count, layers;
} quire__convert_args;

typedef struct quire__table_change {
    int32_t row, column, value;
} quire__table_change;

/* Changes single entries of the device's block table. */
typedef struct quire__table_args {
    int32_t *table;
    int32_t table_stride, count;
    const quire__table_change *changes;
} quire__table_args;

enum {
    QUIRE__PREFILL_TILE = 128,  /* the most tokens of a quire_tile: prefill launches enough thread blocks for this many */
    QUIRE__ATTEND_CHUNK = 16,   /* query heads of a kv head that one thread block of decode takes, */
    QUIRE__ATTEND_CHUNK_F32 = 8, /* and with a cache of f32 */
    QUIRE__ATTEND_DESCRIPTION = 8 /* floats of work space for the description of a context in several pieces */
};

/* Causal attention of some of a step's tokens over pages. `select` names the tokens (decode) or `tiles` the runs of
 * them (prefill); the other is unused. */
typedef struct quire__attend_args {
    quire__pages pages;
    int32_t layer, query_heads;
    float scale;
    quire_tensor q, out; /* [tokens][query_heads][head_dim] */
    const int32_t *block_table;
    int32_t table_stride;
    const int32_t *token_rows, *positions; /* [tokens]; a token sees keys 0..position of its row */
    /* beyond that: quire_attend_params. 0 and NULL: none. */
    int32_t window;     /* a token sees the newest `window` of those keys only; pages of older ones are not read */
    float soft_cap;     /* score -> soft_cap tanh(score / soft_cap) */
    const float *sinks; /* [query_heads]: a score more in the softmax of each head, with nothing to add to the sum */
    const int32_t *select;                 /* decode: [count] token indices; NULL: first_token .. first_token+count-1 */
    int32_t first_token;
    const quire_tile *tiles; /* prefill: [count] */
    int32_t count;
    int32_t longest_context; /* upper bound of position + 1 over the tokens in question; a token at position -1 has
                              * no context, and zeros come out */
    /* decode: contexts are cut into pieces, so that many thread blocks share a long one. Partial results go to `work`,
     * 16-byte aligned, at least quire__attend_work_floats(args) floats.
     *   split_tokens 0     `workers` thread blocks, each with as many tokens of context as the others; where to cut is
     *                      computed on the device from positions, so a captured graph stays balanced as they grow
     *   split_tokens > 0   a multiple of 64: every context is cut at multiples of it, so that a token's bits depend on
     *                      its own context only */
    int32_t split_tokens, workers;
    float *work;
    int64_t work_floats;
} quire__attend_args;

/* The work space that decode needs for these arguments. */
static inline int64_t quire__attend_work_floats(const quire__attend_args *args)
{
    const int64_t group = args->query_heads / args->pages.kv_heads;
    const int64_t most = args->pages.dtype == QUIRE_DTYPE_F32 ? QUIRE__ATTEND_CHUNK_F32 : QUIRE__ATTEND_CHUNK;
    const int64_t heads = group < most ? group : most;
    const int64_t units = args->count * (args->pages.kv_heads * ((group + heads - 1) / heads));
    const int64_t splits =
        args->split_tokens > 0 ? ((int64_t)args->longest_context + args->split_tokens - 1) / args->split_tokens : 0;
    const int64_t contexts = args->split_tokens > 0 ? units : args->workers;
    const int64_t pieces = args->split_tokens > 0 ? units * splits : 2 * (int64_t)args->workers;
    return contexts * QUIRE__ATTEND_DESCRIPTION + pieces * heads * (args->pages.head_dim + 2);
}

/* ---- lossless packing ---------------------------------------------------------------------------------------- */

/* A page of bf16 elements is cut into units; each unit has a slot of a fixed size, so that sizes are known when a
 * launch is enqueued. A slot is
 *
 *     header      32 bytes
 *     bytes       [n]        sign and mantissa of each element
 *     codes       [n / 2]    which of the header's exponents it has, 4 bits each, the even element's low
 *     escapes     [escapes]  words, by ascending position: position | element << 16, for elements whose exponent is none
 *                            of the 16; their code is 0
 *     zeros       to the slot's end
 *
 * The 16 exponents are the unit's most frequent, falling; of two as frequent the lesser comes first; zeros where there
 * are fewer. So equal elements make equal bytes, and a checksum of a slot is a checksum of its elements.
 *
 * A unit with more escapes than its slot has room for is stored: its elements follow the header as they are, if the slot
 * has room for them, else the slot is a header that says 'absent', and the unit has to travel another way. */
enum {
    QUIRE__PACK_MAGIC = 0x314b5051, /* "QPK1" */
    QUIRE__PACK_HEADER_BYTES = 32,
    QUIRE__PACK_UNIT_LEAST = 1024, /* elements */
    QUIRE__PACK_UNIT_MOST = 16384,
    QUIRE__PACK_ESCAPES_MOST = 256
};

typedef enum quire__pack_kind {
    QUIRE__PACK_CODED = 1,
    QUIRE__PACK_STORED = 2,
    QUIRE__PACK_ABSENT = 3
} quire__pack_kind;

typedef struct quire__pack_header {
    uint32_t magic, elements, kind, escapes;
    uint8_t exponents[16];
} quire__pack_header;

/* What pack and unpack say of a unit. */
typedef enum quire__pack_status {
    QUIRE__PACK_DONE = 0,
    QUIRE__PACK_RAW = 1,    /* the slot is absent: its unit's bytes are to be moved as they are */
    QUIRE__PACK_CORRUPT = 2 /* unpack: nothing that pack writes for this shape */
} quire__pack_status;

/* pack: units of pages to slots; unpack: the way back, which writes a unit whole or, whatever its slot holds, not at
 * all, and reads nothing outside the slot. The two sides do not overlap. Unit u of a page is its elements
 * [u * unit_elements, ...), the last one may be shorter. */
typedef struct quire__pack_args {
    unsigned char *arena;
    const int64_t *offsets; /* [count] of the pages in the arena, bytes, multiples of 16 */
    unsigned char *packed;  /* [count][units of a page][slot_bytes], a multiple of 16 */
    int32_t *status;        /* [count][units of a page] out: quire__pack_status */
    int32_t *page_status;   /* [count]: a page with units that are not QUIRE__PACK_DONE gets what one of them has; others are
                             * left as they are. May be pinned memory. NULL: not wanted */
    int64_t page_bytes;     /* a multiple of 64 */
    int32_t unit_elements;  /* QUIRE__PACK_UNIT_LEAST..MOST, a multiple of 64 */
    int32_t slot_bytes;     /* a multiple of 16, at least header and 3/2 bytes an element */
    int32_t count;
    int32_t most_blocks;    /* of threads: leaves multiprocessors to other work; 0: no limit */
} quire__pack_args;

/* ---- shared prefixes ------------------------------------------------------------------------------------------- */

/* Consecutive members, indices into select, whose contexts begin with the same blocks. */
typedef struct quire__shared_group {
    int32_t first, members;
} quire__shared_group;

/* Decode attention of groups of tokens. attend.select names them, group after group, [attend.count]; attend.split_tokens
 * cuts what follows the prefix. Partial results go to attend.work: at least
 * count * query_heads * (ceil(longest_prefix / prefix_split) + 4 ceil(longest_tail / split_tokens)) * (head_dim + 2)
 * floats. */
typedef struct quire__shared_args {
    quire__attend_args attend;
    const quire__shared_group *groups; /* [group_count], in the order of their members */
    const int32_t *prefix_tokens;      /* [attend.count]: of each member's context, those that its group shares; fewer than
                                        * it has, a multiple of block_tokens, the same in all of a group */
    int32_t group_count, most_members; /* of a group */
    int32_t longest_prefix, longest_tail;
    int32_t prefix_split; /* tokens of a prefix that a thread block takes */
} quire__shared_args;

typedef enum quire__kernel {
    QUIRE__KERNEL_APPEND = 0,
    QUIRE__KERNEL_BLOCK_COPY,
    QUIRE__KERNEL_GATHER,
    QUIRE__KERNEL_SCATTER,
    QUIRE__KERNEL_TABLE,
    QUIRE__KERNEL_ATTEND_DECODE,
    QUIRE__KERNEL_ATTEND_PREFILL,
    QUIRE__KERNEL_PACK,
    QUIRE__KERNEL_UNPACK,
    QUIRE__KERNEL_LATENT_APPEND,
    QUIRE__KERNEL_LATENT_ATTEND,
    QUIRE__KERNEL_ATTEND_SHARED,
    QUIRE__KERNEL_CONVERT,
    QUIRE__KERNEL_COUNT
} quire__kernel;

typedef union quire__kernel_args {
    quire__convert_args convert;
    quire__append_args append;
    quire__block_copy_args block_copy;
    quire__pieces_args pieces;
    quire__table_args table;
    quire__attend_args attend;
    quire__pack_args pack;
    quire__shared_args shared;
} quire__kernel_args;

/* CUDA launchers (stream: cudaStream_t), in kernels/. QUIRE_EUNSUPPORTED: no kernel for this head_dim or dtype;
 * QUIRE_EINVAL: misaligned or out of a documented limit; QUIRE_EDEVICE: the launch failed. They set no error text. */
quire_status quire__cuda_append(const quire__append_args *args, void *stream);
quire_status quire__cuda_block_copy(const quire__block_copy_args *args, void *stream);
quire_status quire__cuda_gather(const quire__pieces_args *args, void *stream);
quire_status quire__cuda_scatter(const quire__pieces_args *args, void *stream);
quire_status quire__cuda_table(const quire__table_args *args, void *stream);
quire_status quire__cuda_attend_decode(const quire__attend_args *args, void *stream);
quire_status quire__cuda_attend_prefill(const quire__attend_args *args, void *stream);
quire_status quire__cuda_convert(const quire__convert_args *args, void *stream);
quire_status quire__cuda_pack(const quire__pack_args *args, void *stream);
quire_status quire__cuda_unpack(const quire__pack_args *args, void *stream);
/* Its oracle is the decode twin over the same tokens. */
quire_status quire__cuda_attend_shared(const quire__shared_args *args, void *stream);
/* Rows of 576, 512 of them values; as decode, any number of query heads. */
quire_status quire__cuda_latent_append(const quire__append_args *args, void *stream);
quire_status quire__cuda_latent_attend(const quire__attend_args *args, void *stream);

#ifdef __cplusplus
}
#endif
#endif
