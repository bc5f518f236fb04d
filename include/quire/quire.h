/* quire.h: a paged, shared, evictable KV cache for LLM serving.
 *
 * TERMS
 *   token      one int32 id.
 *   block      the KV of `block_tokens` consecutive tokens, all layers of a group. Fixed size in bytes.
 *   arena      the one device allocation: an array of block slots.
 *   sequence   a growing list of tokens with its block table.
 *   domain     a 64-bit number the caller chooses (tenant, adapter, model). Nothing is shared across domains.
 *   sealed     a block that is full, committed, immutable and matchable. Before that it is open.
 *   tier       a place that holds blocks: device, host.
 *   step       one forward pass of the engine over a batch of sequences.
 *   group      layers with one lifetime and one block format. A block has bytes in each group. The first group keeps those
 *              of a sequence's whole length; another may keep those of its last tokens only (quire_group.window).
 *
 * UNITS     Lengths are tokens, sizes are bytes, times are microseconds unless a name says otherwise.
 *
 * OWNERSHIP Functions named *_open give something that the matching *_close takes back. Everything else that is
 *           returned by pointer is lent, and lives until the call that its description names. Arrays passed in are
 *           read during the call only.
 *
 * HANDLES   Sequences and blocks are 64-bit numbers that carry a generation: using one after its close is
 *           QUIRE_ESTALE, never another sequence's data. 0 is never a valid handle.
 *
 * THREADS   Any thread may call any function of a cache at any time, with these exceptions. A sequence is one thread's at a
 *           time: while a call on it waits, for its restore or for room, or compares a long prompt, others' calls on
 *           it are QUIRE_ESTATE. A step is one thread's at a time, from begin to commit or cancel, its view and kernels
 *           included; while it is open other threads open, match, fork, truncate, close and probe other sequences, and
 *           their begin is QUIRE_ESTATE. Open and close of the cache exclude every other call on it. A lent pointer is
 *           read before a call, of whatever thread, that ends its life. quire_cache_resize keeps the others waiting.
 *           Different caches are independent. The library starts threads for the host device's kernels, but none when
 *           the caller supplies `parallel`, which it may call from several threads at the same time; and one a cache
 *           that pins a large host tier and then ends (host_pin: QUIRE_HOST_PIN_OPEN for none).
 *
 * ERRORS    Whatever can fail returns quire_status, writes its outputs last and only on success, and on failure has
 *           changed nothing. quire_error_text() says, for the calling thread, what was wrong and what would be right.
 *           The library never prints (but see `log`), exits or throws.
 *
 * STREAMS   On CUDA a stream is a cudaStream_t. NULL stands for the cache's own stream, quire_cache_stream(). The
 *           library orders its own work against the stream that a step was begun with; the engine's kernels of that
 *           step must be enqueued on it, between submit and commit.
 *
 * A STEP    quire_seq_open, quire_seq_match                     once a request
 *           quire_step_begin, quire_step_add for each sequence, quire_step_submit
 *             for each layer: quire_append, quire_attend        or the engine's own kernels over the same view
 *           quire_step_commit
 *           quire_seq_fork, quire_seq_truncate, quire_seq_close
 */
#ifndef QUIRE_H
#define QUIRE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUIRE_VERSION_MAJOR 0
#define QUIRE_VERSION_MINOR 1
#define QUIRE_VERSION_PATCH 0

#if defined(__GNUC__)
#define QUIRE_API __attribute__((visibility("default")))
#else
#define QUIRE_API
#endif

/* ---- status ------------------------------------------------------------------------------------------------ */

/* Codes are frozen: a number never changes its meaning. */
typedef enum quire_status {
    QUIRE_OK = 0,
    QUIRE_EINVAL = 1,   /* an argument or an environment variable is wrong */
    QUIRE_ENOMEM = 2,   /* host or device memory could not be had */
    QUIRE_EFULL = 3,    /* every block is in use: close or preempt a sequence, then try again */
    QUIRE_ERANGE = 4,   /* the request can never fit this cache: longer than a sequence or the arena may be */
    QUIRE_ESTALE = 5,   /* the handle's sequence or block is gone */
    QUIRE_EAGAIN = 6,   /* the sequence's restore is still under way */
    QUIRE_ESTATE = 7,   /* the call does not fit now (a second step, a commit before a submit ...) */
    QUIRE_EDEVICE = 8,  /* the device reported a failure */
    QUIRE_ETIMEOUT = 9, /* the wait ended before what was waited for */
    QUIRE_EUNSUPPORTED = 10, /* asked for something that this build or device does not have */
    QUIRE_ECORRUPT = 11, /* quire_cache_check found a broken invariant, or bytes are not what was sent */
    QUIRE_EPEER = 12     /* the other side of a link refused or is gone */
} quire_status;

/* The name of a code, "QUIRE_EFULL". Never NULL. */
QUIRE_API const char *quire_status_name(quire_status status);
/* What the last failed call of this thread had to say. Never NULL; lent until this thread's next failure. */
QUIRE_API const char *quire_error_text(void);
/* "quire 0.1.0 (host, sim, cuda 13.0; deterministic ...)": the version and what this build has. */
QUIRE_API const char *quire_version_string(void);

/* ---- options ----------------------------------------------------------------------------------------------- */

typedef enum quire_dtype {
    QUIRE_DTYPE_F32 = 1,
    QUIRE_DTYPE_F16 = 2,
    QUIRE_DTYPE_BF16 = 3,
    /* of K and V only. Their scales are in the block, made when a token is stored; FP8 takes the caller's instead where
     * quire_group.scales gives them. */
    QUIRE_DTYPE_FP8_E4M3 = 4, /* a scale for each token and head, K rotated; or the caller's scales */
    QUIRE_DTYPE_FP8_E5M2 = 5, /* the same; coarser, for engines that want it */
    QUIRE_DTYPE_INT8 = 6,     /* a scale for each token and head */
    QUIRE_DTYPE_INT4 = 7      /* steps and zeros for each 8 elements, 5 bits an element in all; K is stored rotated */
} quire_dtype;

/* The name that QUIRE_DTYPE has for it, "bf16"; "unknown" for what is no dtype. Never NULL. */
QUIRE_API const char *quire_dtype_name(quire_dtype dtype);

typedef enum quire_checksum {
    QUIRE_CHECKSUM_OFF = 0,
    QUIRE_CHECKSUM_RESTORE = 1 /* computed when a block reaches the host, verified before it returns */
} quire_checksum;

typedef enum quire_offload {
    QUIRE_OFFLOAD_NONE = 0,         /* an evicted block is gone */
    QUIRE_OFFLOAD_WRITE_THROUGH = 1, /* a sealed block is copied to the host behind the step that sealed it */
    QUIRE_OFFLOAD_WRITE_BACK = 2, /* a block is copied when it is about to be evicted. One that must go before it has been copied
                                   * is gone: a step never waits for an offload */
    QUIRE_OFFLOAD_SELECTIVE = 3   /* as write-back, but only what is likely enough to come back, as the policy sees it */
} quire_offload;

/* Host memory that a GPU's copies reach must be pinned, which takes a second for some gigabytes. */
typedef enum quire_host_pin {
    QUIRE_HOST_PIN_BACKGROUND = 0, /* a first piece at open, the rest by a thread of the cache: the host tier grows meanwhile */
    QUIRE_HOST_PIN_OPEN = 1        /* all of it at open */
} quire_host_pin;

/* Lossless packing of blocks on their way to the host: there they take 78 % of their size, so more of them fit, and as many
 * bytes less cross. bf16 only. A block with a layer's K or V whose numbers have many different exponents does not pack: its
 * offload fails, and once evicted it is a miss. K and V of models are far from that. */
typedef enum quire_pack {
    QUIRE_PACK_OFF = 0,
    QUIRE_PACK_ON = 1,  /* QUIRE_EUNSUPPORTED where the group cannot be packed */
    QUIRE_PACK_AUTO = 2 /* where a calibration says that it is faster here */
} quire_pack;

/* How blocks that are not packed cross. */
typedef enum quire_pieces {
    QUIRE_PIECES_COPY = 0,   /* each by the copy engine, those that lie side by side in one piece */
    QUIRE_PIECES_GATHER = 1, /* a kernel lays them side by side first */
    QUIRE_PIECES_AUTO = 2    /* what a calibration says is faster here */
} quire_pieces;

typedef enum quire_log_level {
    QUIRE_LOG_OFF = 0,
    QUIRE_LOG_ERROR = 1,
    QUIRE_LOG_WARN = 2,
    QUIRE_LOG_INFO = 3, /* at open: the effective value of every variable */
    QUIRE_LOG_DEBUG = 4
} quire_log_level;

/* The layers of one lifetime and one block format. A model whose layers differ has several, each with its own part of the
 * arena, its own block tables and views. The first is what prefixes are cached by: it keeps all tokens, so its window and
 * state_bytes are 0. Blocks of a group with a window are given back when a sequence has gone past them; a match then ends
 * where the groups still have what the next token looks at. */
typedef struct quire_group {
    uint32_t layers;      /* 1..1024 */
    uint32_t kv_heads;    /* 1..1024 */
    uint32_t head_dim;    /* 8..512, a multiple of 8; attention on CUDA: 64, 80, 96, 128, 192, 256 */
    uint32_t query_heads; /* a multiple of kv_heads; sizes the attention work space. 0: kv_heads */
    quire_dtype dtype;    /* of K and V in the cache. 0: options.dtype */
    const float *scales;  /* FP8 only: [layers][2][kv_heads], stored = value / scale; copied at open. NULL: every token
                           * has its own, in the block */
    uint32_t value_dim;   /* 0: K and V of head_dim elements each. Else a latent group, as multi-head latent attention has
                           * it: a token has one row of head_dim elements (8..576), whose first value_dim serve as V too.
                           * kv_heads is 1, the dtype F32, F16 or BF16; quire_append_latent and quire_attend_latent. The
                           * CUDA kernels take 576 and 512 in F16 and BF16 */
    uint32_t window;      /* of a group beside the first: tokens that its layers look at, the newest included; blocks behind
                           * them are given back. 0: all tokens, as in the first group */
    uint32_t rollback;    /* with a window: so many tokens more are kept, so that quire_seq_truncate can always take back as
                           * many of what the sequence computed. 0: it may be refused */
    uint32_t blocks;      /* of a group beside the first: on the device. 0: what max_sequences sequences need for their
                           * windows and one of them for a whole step, at most as many as the first group has */
    uint32_t state_bytes; /* 0: K and V. Else a recurrent state, so many bytes a layer, a multiple of 16: a block has the
                           * state after its last token, a sequence keeps its last one (and `rollback` more tokens' worth),
                           * and matches and truncations end between blocks. The engine's kernels read the block before a
                           * token's and write the token's own, by the view; quire_append and quire_attend refuse. kv_heads,
                           * head_dim, query_heads, value_dim and window are 0. Of a group beside the first */
} quire_group;
#define QUIRE_GROUPS 8 /* most groups of a cache */

/* Runs body(arg, i) for every i in [0, count), in any order, on any threads, and returns when all are done. */
typedef void (*quire_parallel_fn)(void *user, size_t count, void (*body)(void *arg, size_t index), void *arg);
typedef void (*quire_log_fn)(void *user, quire_log_level level, const char *line);

/* Fill with quire_options_init, which takes every default from the environment (docs/variables.md); then set what
 * the program decides itself: the caller has the last word. `groups` has no default. */
typedef struct quire_options {
    size_t size; /* sizeof(quire_options), set by quire_options_init */

    const quire_group *groups; /* read at open */
    uint32_t group_count;

    const char *device;    /* "host", "cuda:N", "sim:SEED", or "auto": cuda:0 where there is one, else host */
    uint32_t block_tokens; /* 1..256, a power of two */
    quire_dtype dtype;     /* of groups whose dtype is 0 */
    uint64_t device_bytes; /* arena, rounded down to whole blocks; at least two blocks */
    uint64_t device_max_bytes; /* up to which quire_cache_resize may let the arena grow; 0: it keeps its size */
    uint64_t host_bytes;   /* host tier, rounded down to whole blocks; 0: none */
    uint32_t max_sequences;   /* open at the same time, 1..65536 */
    uint32_t max_seq_tokens;  /* longest sequence; 0: as long as the arena */
    uint32_t max_step_tokens; /* most tokens of one step */
    uint32_t max_domains;     /* domains with an open sequence or a cached block, at the same time */
    uint32_t watermark_blocks; /* kept free of sequences that have not computed anything yet */
    const char *policy;        /* eviction: "learned", "lru" ...: docs/policies.md */
    quire_offload offload;
    quire_checksum checksum;
    uint32_t restore_parts;   /* 1..8: restores arrive in so many groups of layers, the first layers of all blocks first, and a
                                 step may run as soon as the first group is there. 1: a step waits for all of it */
    uint32_t event_capacity;  /* events kept for quire_cache_events, 0: none */
    uint32_t threads;         /* of the host device's kernels; 0: one a core */
    int deterministic;        /* 1: a token's result depends on its own context only, on CUDA too */
    uint32_t move_timeout_ms; /* an asynchronous copy that takes longer has failed */
    uint64_t hash_key;        /* of the prefix table; 0: random. Set it to repeat a run exactly */

    quire_parallel_fn parallel; /* NULL: the library's own threads */
    void *parallel_user;
    quire_log_level log_level;
    quire_log_fn log; /* NULL: lines go to stderr */
    void *log_user;
    void *(*alloc)(void *user, size_t bytes); /* bookkeeping memory, all of it taken at open; NULL: malloc, free */
    void (*free)(void *user, void *memory);
    void *alloc_user;

    const char *trace; /* file that what the cache is asked is recorded to, for quire-replay; NULL or "": none */
    int trace_tokens;  /* 1: with token ids; 0: with hashes of prefixes under a key that is kept nowhere */

    const struct quire_policy *custom_policy; /* quire_backend.h; NULL: the library's own that `policy` names */
    uint32_t pin_blocks; /* most blocks of a tier that QUIRE_PRIORITY_PIN keeps from eviction; 0: none */

    quire_host_pin host_pin;  /* with `trace` everything is pinned at open, so that a replay decides as the cache did */
    uint64_t host_pin_bytes;  /* of the host tier, pinned at a time and all there is at first; rounded down to whole blocks, at
                               * least one. What cannot be pinned in the background is done without, with a line in the log */
    quire_pack pack;          /* it and QUIRE_PIECES_GATHER take up to 32 MiB on the device beside the arena; a larger block: 4
                               * blocks */
    quire_pieces pieces;
    const char *calibration; /* the file that remembers what a calibration found here; "off": none, and AUTO is OFF and COPY;
                              * NULL or "": calibration-DEVICE.txt in $XDG_CACHE_HOME/quire or ~/.cache/quire. Where `pack` or
                              * `pieces` is AUTO, could be either here, and the host tier has 16 MiB, open reads it; where
                              * it says nothing of blocks like these, open measures for some milliseconds and writes it. Nothing
                              * else is ever written, and a file that cannot be read or written changes nothing else. A file
                              * of another device or version is replaced */

    /* Watermarks of write-back and selective, in blocks that are free or whose eviction loses nothing: below the low one the
     * blocks that would go next are offloaded, until the high one is reached. 0: a sixteenth of the arena, or twice what one
     * step may take if that is more; and twice the low one. At most half the arena. */
    uint32_t offload_low_blocks, offload_high_blocks;
} quire_options;

/* Writes defaults, then the QUIRE_* variables over them. QUIRE_EINVAL: a variable is malformed or out of range; the
 * text names it, its value and the range. `size` is sizeof(quire_options). */
QUIRE_API quire_status quire_options_init(quire_options *options, size_t size);

/* ---- cache ------------------------------------------------------------------------------------------------- */

/* Bytes of a block in all groups of the options: for sizing device_bytes and host_bytes. Errors as quire_cache_open. */
QUIRE_API quire_status quire_block_bytes(const quire_options *options, uint64_t *bytes);

typedef struct quire_cache quire_cache;
typedef uint64_t quire_seq;   /* handle of a sequence */
typedef uint64_t quire_block; /* handle of a cached block, as events name it */

/* Opens a cache: takes all the memory it will ever use. QUIRE_EINVAL, QUIRE_ENOMEM (the arena is larger than the
 * memory there is), QUIRE_EUNSUPPORTED, QUIRE_EDEVICE. */
QUIRE_API quire_status quire_cache_open(quire_cache **cache, const quire_options *options);
/* Waits for what is in flight and gives everything back. NULL is allowed. */
QUIRE_API void quire_cache_close(quire_cache *cache);
/* The options in force: every 0 and NULL replaced by what it stood for. Lent until close. */
QUIRE_API const quire_options *quire_cache_options(const quire_cache *cache);
/* The stream that NULL stands for: a cudaStream_t on CUDA. Lent until close. */
QUIRE_API void *quire_cache_stream(quire_cache *cache);
/* Takes in finished copies. Every call that needs it does so itself; a server that idles calls this. */
QUIRE_API quire_status quire_cache_poll(quire_cache *cache);
/* Waits until no copy is in flight. QUIRE_ETIMEOUT. */
QUIRE_API quire_status quire_cache_drain(quire_cache *cache, uint64_t timeout_us);
/* Verifies every invariant of the bookkeeping, and the checksum of every block in the host tier. Reads everything:
 * for tests and for suspicion. QUIRE_ECORRUPT: the text names the invariant. */
QUIRE_API quire_status quire_cache_check(quire_cache *cache);
/* Forgets every cached block that no sequence uses, in all tiers. */
QUIRE_API quire_status quire_cache_clear(quire_cache *cache);
/* How fast the engine computes prompts, in tokens a second, as it measures it; 0, as at open: not known. Once it is known, a
 * match restores from the host only what is cheaper to fetch than to compute, by the measured speed of restores and what is
 * in flight already; the rest counts as a miss. Call it as often as the engine measures. QUIRE_EINVAL: negative or no
 * number. */
QUIRE_API quire_status quire_cache_prefill_rate(quire_cache *cache, double tokens_per_s);
/* Grows or shrinks the arena while sequences are open: memory is mapped behind the range of addresses that was reserved at
 * open, or given back to the machine, in sections of whole blocks; quire_cache_options says the size that came of it, at
 * most `device_bytes`. No pointer changes; the block tables of later steps do. Shrinking evicts what has no room by the
 * policy, and moves the rest to the sections that stay. It waits for copies in flight, up to timeout_us, and for the last
 * step's kernels.
 * QUIRE_EUNSUPPORTED: opened without device_max_bytes, or the device cannot. QUIRE_ESTATE: a step is open. QUIRE_EINVAL: less
 * than a section or more than device_max_bytes. QUIRE_EFULL: sequences hold more. QUIRE_ENOMEM, QUIRE_ETIMEOUT. Nothing has
 * changed then. QUIRE_EDEVICE: a copy failed; no block is lost, and the arena may be somewhere between the two sizes. */
QUIRE_API quire_status quire_cache_resize(quire_cache *cache, uint64_t device_bytes, uint64_t timeout_us);

/* ---- sequences --------------------------------------------------------------------------------------------- */

typedef struct quire_seq_options {
    size_t size;     /* sizeof(quire_seq_options) */
    uint64_t domain; /* shares with sequences of the same domain only */
} quire_seq_options;

/* What a match found, in tokens. device + host = tokens. */
typedef struct quire_hit {
    size_t tokens;  /* of the prompt that need no computing: the sequence's length once it is ready */
    size_t device;  /* of them, on the device already */
    size_t host;    /* of them, on their way from the host tier */
    size_t partial; /* of them, in a block that is shared only in part and copied when first written */
    int ready;      /* 0: a restore is under way; quire_step_add says QUIRE_EAGAIN until it has ended */
} quire_hit;

typedef struct quire_seq_info {
    size_t length;   /* tokens whose KV the sequence has, or will have when its restore ends */
    size_t computed; /* of them, appended by steps rather than matched */
    size_t blocks;   /* in its table */
    uint64_t domain;
    int ready;
} quire_seq_info;

/* An empty sequence. `options` NULL: domain 0. QUIRE_EFULL: max_sequences or max_domains are open. */
QUIRE_API quire_status quire_seq_open(quire_cache *cache, const quire_seq_options *options, quire_seq *seq);
/* Gives an empty sequence the longest cached prefix of the prompt, from any tier, and starts the restores that it
 * needs. At least one token of the prompt is left to compute. A restore that fails makes the sequence shorter: read
 * the final length when it is ready. `hit` may be NULL. QUIRE_ESTATE: the sequence is not empty.
 * QUIRE_ERANGE: the prompt is longer than a sequence may be. */
QUIRE_API quire_status quire_seq_match(quire_cache *cache, quire_seq seq, const int32_t *tokens, size_t count,
                                       quire_hit *hit);
/* Waits for the sequence's restore; timeout 0 only looks. QUIRE_ETIMEOUT: still under way. */
QUIRE_API quire_status quire_seq_wait(quire_cache *cache, quire_seq seq, uint64_t timeout_us);
QUIRE_API quire_status quire_seq_get(quire_cache *cache, quire_seq seq, quire_seq_info *info);
/* A second sequence with the same tokens. No KV moves until one of them writes into a block that both hold.
 * Not while the sequence is in an open step (QUIRE_ESTATE). */
QUIRE_API quire_status quire_seq_fork(quire_cache *cache, quire_seq seq, quire_seq *child);
/* Shortens the sequence to its first `length` tokens (speculative decoding, beam search).
 * QUIRE_EINVAL: `length` is longer than the sequence. QUIRE_ESTATE: it is in an open step, or a group has given back what a
 * sequence of that length looks at (quire_group.rollback), or has a state between blocks only; nothing has changed. */
QUIRE_API quire_status quire_seq_truncate(quire_cache *cache, quire_seq seq, size_t length);

/* ---- hints: what an engine may say of a sequence before it closes it. All are optional, and advice: docs/policies.md
 * says which eviction policy heeds what. The last word on each counts. */
enum {
    QUIRE_HINT_TURN_ENDED = 1, /* the model has ended its turn: a human speaks next, not a tool */
    QUIRE_HINT_NO_REUSE = 2    /* nobody will ask for what this sequence computed */
};
#define QUIRE_PRIORITY_DEFAULT 50
#define QUIRE_PRIORITY_PIN 1000 /* not to be evicted, within options.pin_blocks; beyond them as 100 */
#define QUIRE_HINT_RANGES 4

/* Tokens that keep a priority for a while after the sequence's end. A block that lies in it in part counts. */
typedef struct quire_hint_range {
    uint32_t first_token, tokens; /* tokens 0: to the end */
    int32_t priority;             /* 0 (goes first) .. 100, or QUIRE_PRIORITY_PIN */
    uint64_t duration_us;         /* then it falls to the default; 0: for good */
} quire_hint_range;

typedef struct quire_hint {
    size_t size;           /* sizeof(quire_hint) */
    uint32_t flags;        /* QUIRE_HINT_* */
    uint32_t range_count;  /* at most QUIRE_HINT_RANGES; where ranges overlap the highest priority counts */
    quire_hint_range ranges[QUIRE_HINT_RANGES];
    uint64_t next_use_us;  /* when the prompt is expected again, from the call on; 0: not known */
    uint32_t generated;    /* tokens that the model answered with, where they were not appended to the sequence; 0: the cache
                            * counts what was appended after the prompt that was matched */
} quire_hint;

/* QUIRE_EINVAL: the size, an unknown flag, too many ranges, a priority out of range. The hint is copied. */
QUIRE_API quire_status quire_seq_hint(quire_cache *cache, quire_seq seq, const quire_hint *hint);
/* What sequences of the domain leave behind counts as expired so long after its last use; 0: never, as at first. Up to 64
 * domains have a time to live (QUIRE_EFULL). */
QUIRE_API quire_status quire_domain_ttl(quire_cache *cache, uint64_t domain, uint64_t ttl_us);
/* Ends the sequence; its sealed blocks stay cached. QUIRE_ESTATE: it is in an open step. */
QUIRE_API quire_status quire_seq_close(quire_cache *cache, quire_seq seq);
/* What a match would find. Pins nothing, starts nothing, extends no lifetime; `ready` says whether it is all on the
 * device. */
QUIRE_API quire_status quire_cache_probe(quire_cache *cache, uint64_t domain, const int32_t *tokens, size_t count,
                                         quire_hit *hit);

/* ---- steps ------------------------------------------------------------------------------------------------- */

typedef struct quire_step quire_step;

/* Rows with more than one new token are cut into tiles of consecutive tokens; a tile is of one row. */
typedef struct quire_tile {
    int32_t row, first_token, tokens; /* first_token: an index into the step's tokens */
} quire_tile;

/* What kernels need, of one group. K of (block, layer, head, token) starts at
 *   arena + block * block_stride + layer * layer_stride + head * head_stride + token * token_stride
 * and V kv_stride bytes further; head_dim elements lie side by side. Where scale_stride is not 0, the token's scales,
 * an f16 for each scale_group elements (int4: a word of 32 bits for each), start at
 *   arena + block * block_stride + layer * layer_stride + head * head_stride + scale_offset + token * scale_stride
 * and V's kv_stride bytes further. What codes mean: docs/design.md, "Formats". Row i is the i-th sequence that was added.
 * Arrays are on the device, at the same addresses in every step of the cache. Lent until the step's commit or cancel. */
typedef struct quire_view {
    void *arena;
    int64_t block_stride, layer_stride, kv_stride, head_stride, token_stride; /* bytes */
    uint32_t blocks, block_tokens, layers, kv_heads, head_dim, query_heads;
    quire_dtype dtype;
    const float *scales; /* [layers][2][kv_heads], FP8 whose scales the caller gave, else NULL */
    int64_t scale_offset, scale_stride; /* bytes; scale_stride 0: no scales in the block */
    uint32_t scale_group;
    uint32_t rotation;   /* of K, in dims, and so of q: Hadamard over its root. 0: none */
    uint32_t value_dim;  /* latent: V is the first value_dim elements of K, kv_stride is 0. 0: K and V */
    uint32_t window;     /* of the group: entries of a row's block table before those of its tokens' windows are some block
                          * or other, not the row's; kernels must not read them. 0: all are the row's */
    uint32_t state_bytes; /* of a layer, of a group with a recurrent state; then the other strides and dims are 0 */

    uint32_t rows, tokens; /* sequences, and new tokens of all of them, row after row */
    uint32_t table_stride; /* entries from one row of block_table to the next */
    const int32_t *block_table;  /* [rows][table_stride]: block slots; entries past a row's length are undefined */
    const int32_t *context_lens; /* [rows]: tokens with this step's */
    const int32_t *query_start;  /* [rows + 1]: a row's first new token */
    const int64_t *slot_mapping; /* [tokens]: block slot * block_tokens + offset, where the token's K and V go */
    const int32_t *positions;    /* [tokens]: in the sequence, from 0 */
    const int32_t *token_rows;   /* [tokens] */
    uint32_t decodes;            /* rows with one new token */
    uint32_t tiles;
    const int32_t *decode_tokens; /* [decodes]: the index of each one's token */
    const quire_tile *tile_list;  /* [tiles] */
    uint32_t longest_context;     /* of all rows */

    void *stream;
    void *owner; /* the library's own */
} quire_view;

/* Begins a step; `stream` NULL is the cache's own. One step may be open. The step is lent until commit or cancel. */
QUIRE_API quire_status quire_step_begin(quire_cache *cache, void *stream, quire_step **step);
/* Adds `count` tokens of one sequence, to be computed in this step; one add a sequence. `tokens` NULL reserves room for
 * tokens that are not known yet; name them before commit.
 * QUIRE_EFULL: no blocks left; QUIRE_EAGAIN: its restore is under way, or has just turned out to have failed in part, and the
 * sequence is shorter than it was said to be (quire_seq_get); QUIRE_ERANGE: the sequence would be longer than
 * it may be; QUIRE_EINVAL. In each case other sequences and this one are as before. */
QUIRE_API quire_status quire_step_add(quire_step *step, quire_seq seq, const int32_t *tokens, size_t count);
/* Before submit: a decode step that is captured as a CUDA graph once and replayed in later steps. Each row has one token; the
 * view then has exactly `rows` rows, tokens and decodes, those behind the step's own empty (position and slot -1: nothing is
 * stored, and their output is zeros), and `longest_context` as given. Over such a view quire_append* and quire_attend* do
 * nothing but launch kernels: no copy, wait, allocation or question to an event. What they launch depends on the two numbers,
 * the tensors given and the cache's memory, whose addresses never change (see quire_view); what differs from step to step they
 * read from the view's arrays. So a graph of these calls may be replayed, on the step's stream, between submit and commit of
 * any later step with the same two numbers: after evictions, copies-on-write, restores and quire_cache_resize too. All parts
 * of restores (restore_parts) have been waited for at submit. Prefixes that rows share are read by each row.
 * QUIRE_EINVAL: rows is 0, or above max_sequences or max_step_tokens; longest_context is 0 or above max_seq_tokens. At submit:
 * the step has more rows, a row of several tokens, or one with a longer context; it may then be cancelled, or the call made
 * again with other numbers. QUIRE_EUNSUPPORTED: the cache has several groups. */
QUIRE_API quire_status quire_step_graph(quire_step *step, uint32_t rows, uint32_t longest_context);
/* Enqueues the copies and tables that the step needs. From here the view may be used. */
QUIRE_API quire_status quire_step_submit(quire_step *step);
/* The view of one group; NULL before submit or for a group that there is not. */
QUIRE_API const quire_view *quire_step_view(quire_step *step, uint32_t group);
/* Engines with attention kernels of their own, where options.restore_parts is above 1: makes the step's stream wait until this
 * layer of all restored blocks has arrived. Before the layer's kernels that read the cache; quire_attend does it itself. Layers
 * in any order; after the first call for a group of layers the others cost nothing. */
QUIRE_API quire_status quire_step_await_layer(quire_step *step, uint32_t layer);
/* Sequences of a step that begin with the same blocks. */
typedef struct quire_prefix {
    uint32_t first, rows; /* rows[first .. first + rows) of quire_step_prefixes */
    uint32_t blocks;      /* that their block tables share, from the first on; none of them is written by this step */
} quire_prefix;

/* Groups of the step's rows with one new token, chosen so that reading a group's shared blocks once for all of it saves
 * much: a row is in one group at most. quire_attend reads them so on CUDA where that pays, unless the cache is
 * deterministic; this is for engines with kernels of their own. `rows` are rows of the view, on the host; the rows of the
 * groups come first. Lent until commit or cancel; found when first asked for. QUIRE_ESTATE: not submitted. */
QUIRE_API quire_status quire_step_prefixes(quire_step *step, const quire_prefix **groups, size_t *count,
                                           const uint32_t **rows);
/* Names all the tokens that an add left open. */
QUIRE_API quire_status quire_step_name(quire_step *step, quire_seq seq, const int32_t *tokens, size_t count);
/* The engine has enqueued everything. Full blocks become matchable, their offload begins behind the step.
 * QUIRE_ESTATE: not submitted, or tokens without a name; the step stays open.
 * QUIRE_EDEVICE: a restore failed that rows of the step ran ahead of (restore_parts). The step has ended; those sequences
 * have none of its tokens, and what the restore lost they have lost too (quire_seq_get), the others are committed. */
QUIRE_API quire_status quire_step_commit(quire_step *step);
/* Takes the step back: every sequence is as long as before it. NULL is allowed. */
QUIRE_API void quire_step_cancel(quire_step *step);

/* ---- kernels ----------------------------------------------------------------------------------------------- */

/* [tokens][heads][head_dim], on the device. Strides in elements; the elements of a head lie side by side. */
typedef struct quire_tensor {
    void *data;
    quire_dtype dtype; /* F32, F16 or BF16 */
    uint32_t heads;
    int64_t token_stride, head_stride;
} quire_tensor;

/* Stores the step's new K and V, [view.tokens][kv_heads][head_dim] each, in their slots. On the view's stream. */
QUIRE_API quire_status quire_append(const quire_view *view, uint32_t layer, const quire_tensor *k,
                                    const quire_tensor *v);
/* A rotary position embedding. A token at position p turns the pair i of each head of K (and q) by an angle whose cosine
 * and sine are table[p][i]: (a, b) becomes (a cos - b sin, a sin + b cos). How angles follow from positions (base,
 * scaling, interpolation) is the table's business. */
typedef struct quire_rope {
    size_t size;         /* sizeof(quire_rope) */
    const float *table;  /* on the device: [positions][dims / 2][2], cosine and sine */
    uint32_t positions;  /* that the table has; more than any token of the step is at */
    uint32_t dims;       /* the first so many of a head are turned: a multiple of 8, at most head_dim */
    int interleaved;     /* pairs are 0: (i, i + dims / 2); 1: (2 i, 2 i + 1) */
    const quire_tensor *q, *q_out; /* q turned as well, [view.tokens][heads][head_dim]; may be one and the same. NULL: not */
} quire_rope;

/* quire_append of K turned by its positions, in one kernel; k itself is not changed. */
QUIRE_API quire_status quire_append_rope(const quire_view *view, uint32_t layer, const quire_tensor *k,
                                         const quire_tensor *v, const quire_rope *rope);
/* out = softmax(q K^T * scale) V for each new token over its own context, itself included. q and out are
 * [view.tokens][query_heads][head_dim]; query head h reads kv head h / (query_heads / kv_heads). On the view's stream,
 * after quire_append of the same layer. */
QUIRE_API quire_status quire_attend(const quire_view *view, uint32_t layer, const quire_tensor *q,
                                    const quire_tensor *out, float scale);

/* How scores become weights. Zero what is not wanted; `scale` has no default. */
typedef struct quire_attend_params {
    size_t size;        /* sizeof(quire_attend_params) */
    float scale;        /* score = q k * scale; finite */
    uint32_t window;    /* a token sees its own position and the window - 1 before it; 0: its whole context. Pages that
                         * lie outside are not read. */
    float soft_cap;     /* score = soft_cap * tanh(score / soft_cap), as in Gemma 2; 0: none; not negative */
    const float *sinks; /* [query_heads] on the device: a score more in the denominator of each head's softmax, of a key
                         * whose V is zero; neither scaled nor capped (attention sinks, Xiao et al. 2023, as gpt-oss has
                         * them). NULL: none. -infinity: none for that head. Must stay until the step's kernels have run */
} quire_attend_params;

/* quire_attend with parameters, which may differ from layer to layer. QUIRE_EINVAL: a parameter is out of its range. */
QUIRE_API quire_status quire_attend_with(const quire_view *view, uint32_t layer, const quire_tensor *q,
                                         const quire_tensor *out, const quire_attend_params *params);

/* Of a latent group. Stores the step's rows: the first value_dim elements of each from `latent`, [view.tokens][1]
 * [value_dim], the others, the rotated part of K, from `rope`, [view.tokens][1][head_dim - value_dim] (NULL where that
 * is 0). On the view's stream. QUIRE_EINVAL: the group is not latent. */
QUIRE_API quire_status quire_append_latent(const quire_view *view, uint32_t layer, const quire_tensor *latent,
                                           const quire_tensor *rope);
/* Of a latent group: out = softmax(q row^T * scale) row[0:value_dim] for each new token over its own context. q is
 * [view.tokens][query_heads][head_dim], with the up-projection of K absorbed into it; out [view.tokens][query_heads]
 * [value_dim], before the up-projection of V (DeepSeek-V2, 2024, section 2.1). On CUDA q is rounded to the cache's dtype,
 * and every token is computed by the decode kernel. On the view's stream, after quire_append_latent of the same layer.
 * QUIRE_EINVAL: the group is not latent. */
QUIRE_API quire_status quire_attend_latent(const quire_view *view, uint32_t layer, const quire_tensor *q,
                                           const quire_tensor *out, float scale);

/* ---- what a server exports --------------------------------------------------------------------------------- */

typedef struct quire_stats {
    size_t size; /* sizeof(quire_stats), set by the caller */
    uint64_t matches, match_tokens;   /* calls, and the prompt tokens they asked for */
    uint64_t hit_tokens_device, hit_tokens_host, hit_tokens_partial; /* partial is part of the other two */
    uint64_t miss_tokens;
    uint64_t computed_tokens;         /* committed by steps */
    uint64_t steps;
    uint64_t blocks_sealed, blocks_deduplicated, copies_on_write;
    uint64_t evictions_device, evictions_host; /* blocks dropped from a tier to make room */
    uint64_t offloads, offload_bytes, offload_failures;
    uint64_t restores, restore_bytes, restore_failures, checksum_failures;
    uint64_t restores_declined; /* matches that left blocks on the host, since computing them was cheaper */
    uint64_t events_lost;
    /* occupancy now, in blocks: device_total = free + open + used + cached + moving */
    uint64_t device_total, device_free, device_open, device_used, device_cached, device_moving;
    uint64_t host_total, host_free, host_cached, host_moving;
    uint64_t sequences, domains;
    uint64_t block_bytes;
    /* evicted blocks that the host did not have: write-back had not come to them in time; selective found them not worth it */
    uint64_t offloads_missed, offloads_declined;
    /* Prompt tokens that a match found on the host and left there, to be computed: since that was cheaper by what had been
     * measured (with nothing measured: since they were less than half a block); since no slot was to be had on the device for
     * them; since another move had their block. What was cheaper to restore and was not restored is the last two. */
    uint64_t tokens_declined, tokens_no_room, tokens_busy;
    double restore_block_us, compute_block_us; /* what the first is decided by: of a block, as measured until now; 0: not yet */
} quire_stats;

QUIRE_API quire_status quire_cache_stats(quire_cache *cache, quire_stats *stats);

/* One group's blocks on the device, now: blocks = free + used + cached + moving; and counts since open. */
typedef struct quire_group_stats {
    size_t size; /* sizeof(quire_group_stats), set by the caller */
    uint64_t blocks, free, used, cached, moving;
    uint64_t given_back; /* left behind by the windows of sequences that went on */
    uint64_t evictions;  /* cached blocks that gave their place to others */
    uint64_t restores;   /* of a group beside the first: blocks begun to be brought back from the host tier */
    uint64_t block_bytes;
} quire_group_stats;

/* QUIRE_EINVAL: there is no such group; the size. */
QUIRE_API quire_status quire_cache_group_stats(quire_cache *cache, uint32_t group, quire_group_stats *stats);

typedef enum quire_tier { QUIRE_TIER_DEVICE = 0, QUIRE_TIER_HOST = 1 } quire_tier;
typedef enum quire_event_type { QUIRE_EVENT_STORED = 1, QUIRE_EVENT_REMOVED = 2 } quire_event_type;

/* A sealed block appeared in a tier or left it. Sequence numbers rise by one; a gap means that the reader was slow. */
typedef struct quire_event {
    uint64_t number;
    quire_event_type type;
    quire_tier tier;
    quire_block block, parent; /* parent 0: the block begins a prompt */
    uint64_t domain;
    uint32_t first_token; /* position of the block's first token in its prompt */
} quire_event;

/* Takes up to `capacity` events, oldest first. */
QUIRE_API quire_status quire_cache_events(quire_cache *cache, quire_event *events, size_t capacity, size_t *count);
/* The tokens of a cached block: block_tokens of them. QUIRE_ESTALE: it is gone. */
QUIRE_API quire_status quire_block_tokens(quire_cache *cache, quire_block block, int32_t *tokens);

#ifdef __cplusplus
}
#endif
#endif
