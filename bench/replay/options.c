#define _POSIX_C_SOURCE 200809L
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "input.h"

static const char help[] =
    "Usage: quire-replay TRACE [OPTION]...\n"
    "\n"
    "Replays a request trace through the deciding half of a Quire cache, and says what a cache of each size "
    "would have\n"
    "saved. TRACE is a file, or - for standard input: Mooncake JSONL, JSONL with token ids, or prefix-trace "
    "v1\n"
    "(docs/replay.md has the fields); .xz and .zst are read as they are.\n"
    "\n"
    "  quire-replay trace.jsonl --device 64G\n"
    "  quire-replay trace.jsonl --device 1%,2%,5%,10% --policy all\n"
    "  quire-replay trace.jsonl --device 40G --host 0,100G,400G --layers 80 --kv-heads 8\n"
    "\n"
    "The trace\n"
    "  --piece-tokens N     tokens of a hash id in JSONL (default 512)\n"
    "  --requests N         read the first N requests only\n"
    "  --strict             a malformed line ends the run; else it is named and skipped\n"
    "  --memory SIZE        most memory that the trace may take (default 8G)\n"
    "  --longest-line SIZE  (default 64M)\n"
    "The model, which says what a token takes\n"
    "  --layers N --kv-heads N --head-dim N --dtype f32|f16|bf16|fp8\n"
    "                       (default 32, 8, 128, bf16: that of Llama-3-8B, 128 KiB a token)\n"
    "  --token-bytes SIZE   instead of those\n"
    "The cache\n"
    "  --device LIST        sizes of the device tier (default 10%)\n"
    "  --host LIST          sizes of the host tier (default 0)\n"
    "                       A size is bytes (64G), tokens (2.1Mtok), blocks (4096blk), or a part of what an "
    "infinite\n"
    "                       cache of the prompts would hold (5%).\n"
    "  --policy LIST        eviction policies, or all (default: QUIRE_POLICY, or the library's)\n"
    "  --offload LIST       of write-through, write-back, selective; or all (default: QUIRE_OFFLOAD)\n"
    "  --block-tokens N     (default: QUIRE_BLOCK_TOKENS, 16)\n"
    "  --hints              tell the cache which requests end a turn, where the trace says so\n"
    "  --no-output          leave out generated tokens: they take no room then\n"
    "  --pieces             a block is a piece of the trace, and its output is left out\n"
    "A recording of Quire's own (QUIRE_TRACE=FILE), beside all this\n"
    "  --as-recorded        the very calls that the program made, at its sizes unless --device and --host "
    "give others;\n"
    "                       hits are set beside those that it had\n"
    "The engine\n"
    "  --timed              requests arrive at their times, run side by side, wait and are preempted, as in "
    "an engine\n"
    "                       (without it they run one after another, which is fastest)\n"
    "  --prefill-rate N     prompt tokens a second (default 20000)\n"
    "  --decode-ms X        time of a decode step (default 20)\n"
    "  --batch N            sequences that run at most (default 256)\n"
    "  --step-tokens N      prompt tokens of a step at most (default 8192)\n"
    "  --restore-rate SIZE  bytes a second from host to device (default 20G)\n"
    "  --offload-rate SIZE  and back (default 20G)\n"
    "  --speed X            arrivals come X times as fast (default 1)\n"
    "The curve and the plan (instead of runs at the sizes of --device and --host)\n"
    "  --curve FILE.csv     hit ratio against capacity, 20 or 40 of them, for each policy, with the bounds; "
    "draw it\n"
    "                       with bench/replay/plot FILE.csv OUT.svg\n"
    "  --check N            exact runs at N of the capacities, and how far off the curve is\n"
    "  --plan               what to buy, in words, for the first policy; from the engine's rates above and\n"
    "  --device-price X --host-price X\n"
    "                       of a GiB, in any money (default 20 and 1)\n"
    "  --share N            percent of what an infinite cache finds (default 90)\n"
    "  --ttft S             wanted time to the first token in seconds: the cheapest sizes for it\n"
    "  --percentile N       of the requests that are to have it (default 95)\n"
    "A cluster\n"
    "  --nodes LIST         so many nodes, 64 at most, with as many copies of the trace, routed by prefix, "
    "by load and in\n"
    "                       turn: hits, balance and first tokens; --device and --host are of each node\n"
    "What to show\n"
    "  --floor              time the memory traffic that no bookkeeping can avoid, beside each replay\n"
    "  --json               one JSON object instead of tables\n"
    "  --quiet              no progress bar (there is one only on a terminal)\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 done, 1 something failed, 2 the command line is wrong.\n";

enum {
    PIECE_TOKENS = 256,
    REQUESTS,
    STRICT,
    MEMORY,
    LONGEST_LINE,
    LAYERS,
    KV_HEADS,
    HEAD_DIM,
    DTYPE,
    TOKEN_BYTES,
    DEVICE,
    HOST,
    POLICY,
    OFFLOAD,
    BLOCK_TOKENS,
    HINTS,
    NO_OUTPUT,
    PIECES,
    AS_RECORDED,
    TIMED,
    PREFILL_RATE,
    DECODE_MS,
    BATCH,
    STEP_TOKENS,
    RESTORE_RATE,
    OFFLOAD_RATE,
    SPEED,
    CURVE,
    CHECK,
    PLAN,
    DEVICE_PRICE,
    HOST_PRICE,
    SHARE,
    TTFT,
    PERCENTILE,
    NODES,
    FLOOR,
    JSON,
    QUIET,
    HELP,
    VERSION
};

static const struct option names[] = {
    {"piece-tokens", required_argument, NULL, PIECE_TOKENS},
    {"requests", required_argument, NULL, REQUESTS},
    {"strict", no_argument, NULL, STRICT},
    {"memory", required_argument, NULL, MEMORY},
    {"longest-line", required_argument, NULL, LONGEST_LINE},
    {"layers", required_argument, NULL, LAYERS},
    {"kv-heads", required_argument, NULL, KV_HEADS},
    {"head-dim", required_argument, NULL, HEAD_DIM},
    {"dtype", required_argument, NULL, DTYPE},
    {"token-bytes", required_argument, NULL, TOKEN_BYTES},
    {"device", required_argument, NULL, DEVICE},
    {"host", required_argument, NULL, HOST},
    {"policy", required_argument, NULL, POLICY},
    {"offload", required_argument, NULL, OFFLOAD},
    {"block-tokens", required_argument, NULL, BLOCK_TOKENS},
    {"hints", no_argument, NULL, HINTS},
    {"no-output", no_argument, NULL, NO_OUTPUT},
    {"pieces", no_argument, NULL, PIECES},
    {"as-recorded", no_argument, NULL, AS_RECORDED},
    {"timed", no_argument, NULL, TIMED},
    {"prefill-rate", required_argument, NULL, PREFILL_RATE},
    {"decode-ms", required_argument, NULL, DECODE_MS},
    {"batch", required_argument, NULL, BATCH},
    {"step-tokens", required_argument, NULL, STEP_TOKENS},
    {"restore-rate", required_argument, NULL, RESTORE_RATE},
    {"offload-rate", required_argument, NULL, OFFLOAD_RATE},
    {"speed", required_argument, NULL, SPEED},
    {"curve", required_argument, NULL, CURVE},
    {"check", required_argument, NULL, CHECK},
    {"plan", no_argument, NULL, PLAN},
    {"device-price", required_argument, NULL, DEVICE_PRICE},
    {"host-price", required_argument, NULL, HOST_PRICE},
    {"share", required_argument, NULL, SHARE},
    {"ttft", required_argument, NULL, TTFT},
    {"percentile", required_argument, NULL, PERCENTILE},
    {"nodes", required_argument, NULL, NODES},
    {"floor", no_argument, NULL, FLOOR},
    {"json", no_argument, NULL, JSON},
    {"quiet", no_argument, NULL, QUIET},
    {"help", no_argument, NULL, HELP},
    {"version", no_argument, NULL, VERSION},
    {NULL, 0, NULL, 0},
};

/* ---- values -------------------------------------------------------------------------------------------- */

/* The power of 1024 (bytes) or of 1000 (counts) that a letter stands for; 1 and *at unmoved when there is
 * none. */
static double prefix_of(const char **at, double base)
{
    static const char letters[] = "KMGT";
    const char *letter = **at ? strchr(letters, **at == 'k' ? 'K' : **at) : NULL;
    if (!letter)
        return 1;
    (*at)++;
    return pow(base, (double)(letter - letters + 1));
}

static int parse_size(const char *option, const char *text, size_t length, replay_size *size,
                      replay_error *error)
{
    static const struct {
        const char *name;
        replay_unit unit;
        double base;
    } units[] = {
        {"", REPLAY_BYTES, 1024},     {"B", REPLAY_BYTES, 1024},    {"iB", REPLAY_BYTES, 1024},
        {"tok", REPLAY_TOKENS, 1000}, {"blk", REPLAY_BLOCKS, 1000}, {"%", REPLAY_PERCENT, 1},
    };
    char copy[64], *end;
    if (length < sizeof copy) {
        memcpy(copy, text, length);
        copy[length] = '\0';
        double value = strtod(copy, &end);
        for (size_t i = 0; end > copy && value >= 0 && value < 1e18 && i < sizeof units / sizeof *units;
             i++) {
            const char *at = end;
            double scale = prefix_of(&at, units[i].base);
            if (strcmp(at, units[i].name) != 0)
                continue;
            *size = (replay_size){value * scale, units[i].unit};
            return 0;
        }
    }
    return replay_fail(
        error, "--%s is \"%.*s\"; a size is bytes (64G), tokens (2.1Mtok), blocks (4096blk) or percent (5%%)",
        option, (int)(length < 40 ? length : 40), text);
}

int replay_sizes_parse(const char *option, const char *text, replay_sizes *sizes, replay_error *error)
{
    sizes->count = 0;
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");
        if (sizes->count == REPLAY_MOST_SIZES)
            return replay_fail(error, "--%s has more than %d sizes", option, REPLAY_MOST_SIZES);
        if (parse_size(option, at, length, &sizes->list[sizes->count++], error))
            return -1;
        at += length;
        if (*at == '\0')
            return 0;
    }
}

static int take_bytes(const char *option, const char *text, uint64_t least, uint64_t *bytes,
                      replay_error *error)
{
    replay_size size = {0};
    if (parse_size(option, text, strlen(text), &size, error))
        return -1;
    if (size.unit != REPLAY_BYTES || size.value < (double)least)
        return replay_fail(error, "--%s is \"%.40s\"; give bytes, %" PRIu64 " at least, as in 64K or 4G",
                           option, text, least);
    *bytes = (uint64_t)size.value;
    return 0;
}

static int take_whole(const char *option, const char *text, uint64_t least, uint64_t most, uint64_t *value,
                      replay_error *error)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || number < least || number > most)
        return replay_fail(error, "--%s is \"%.40s\"; it must be a whole number from %" PRIu64 " to %" PRIu64,
                           option, text, least, most);
    *value = number;
    return 0;
}

static int take_small(const char *option, const char *text, uint32_t most, uint32_t *value,
                      replay_error *error)
{
    uint64_t whole = 0;
    if (take_whole(option, text, 1, most, &whole, error))
        return -1;
    *value = (uint32_t)whole;
    return 0;
}

/* A number above 0, times `unit`. */
static int take_real(const char *option, const char *text, double unit, double *value, replay_error *error)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || !(number > 0 && number <= 1e12))
        return replay_fail(error, "--%s is \"%.40s\"; it must be a number above 0", option, text);
    *value = number * unit;
    return 0;
}

static int take_rate(const char *option, const char *text, double *rate, replay_error *error)
{
    uint64_t bytes = 0;
    if (take_bytes(option, text, 1, &bytes, error))
        return -1;
    *rate = (double)bytes;
    return 0;
}

static int take_offloads(char *text, replay_options *options, replay_error *error)
{
    const char *const *known = quire__variable_find("QUIRE_OFFLOAD")->choices;
    bool all = strcmp(text, "all") == 0;
    options->offload_count = 0;
    for (int i = QUIRE_OFFLOAD_WRITE_THROUGH; all && i <= QUIRE_OFFLOAD_SELECTIVE; i++)
        options->offloads[options->offload_count++] = (quire_offload)i;
    for (char *name = all ? NULL : strtok(text, ","); name; name = strtok(NULL, ",")) {
        int i = QUIRE_OFFLOAD_WRITE_THROUGH;
        while (known[i] && strcmp(known[i], name) != 0)
            i++;
        if (!known[i] || options->offload_count == REPLAY_MOST_OFFLOADS)
            return replay_fail(error, "--offload has \"%.40s\"; expected all, or some of: write-through, write-back, "
                               "selective (and --host 0 for none)", name);
        options->offloads[options->offload_count++] = (quire_offload)i;
    }
    return options->offload_count > 0 ? 0 : replay_fail(error, "--offload names none");
}

static int take_dtype(const char *text, uint32_t *bytes, replay_error *error)
{
    static const struct {
        const char *name;
        uint32_t bytes;
    } dtypes[] = {{"f32", 4}, {"f16", 2}, {"bf16", 2}, {"fp8", 1}};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(text, dtypes[i].name) == 0) {
            *bytes = dtypes[i].bytes;
            return 0;
        }
    }
    return replay_fail(error, "--dtype is \"%.40s\"; expected f32, f16, bf16 or fp8", text);
}

/* The names are checked against the library's; `text` is argv's own and may be cut up. */
static int take_policies(char *text, replay_options *options, replay_error *error)
{
    const char *const *known = quire__variable_find("QUIRE_POLICY")->choices;
    char range[160];
    options->policy_count = 0;
    if (strcmp(text, "all") == 0) {
        for (; known[options->policy_count] && options->policy_count < REPLAY_MOST_POLICIES;
             options->policy_count++)
            options->policies[options->policy_count] = known[options->policy_count];
        return 0;
    }
    for (char *name = strtok(text, ","); name; name = strtok(NULL, ",")) {
        size_t i = 0;
        while (known[i] && strcmp(known[i], name) != 0)
            i++;
        quire__variable_range(quire__variable_find("QUIRE_POLICY"), range, sizeof range);
        if (!known[i] || options->policy_count == REPLAY_MOST_POLICIES)
            return replay_fail(error, "--policy has \"%.40s\"; expected all, or some of: %s", name, range);
        options->policies[options->policy_count++] = known[i];
    }
    return options->policy_count > 0 ? 0 : replay_fail(error, "--policy names none");
}

/* ---- the line ------------------------------------------------------------------------------------------ */

static int take_engine_option(replay_engine_model *model, int option, const char *name, replay_error *error)
{
    switch (option) {
    case PREFILL_RATE: return take_real(name, optarg, 1, &model->prefill_rate, error);
    case DECODE_MS: return take_real(name, optarg, 1e-3, &model->decode_seconds, error);
    case BATCH: return take_small(name, optarg, 65536, &model->batch, error);
    case STEP_TOKENS: return take_small(name, optarg, 1 << 24, &model->step_tokens, error);
    case RESTORE_RATE: return take_rate(name, optarg, &model->restore_rate, error);
    case OFFLOAD_RATE: return take_rate(name, optarg, &model->offload_rate, error);
    default: return take_real(name, optarg, 1, &model->speed, error);
    }
}

static int take_nodes(char *text, replay_options *options, replay_error *error)
{
    options->node_count = 0;
    for (char *number = strtok(text, ","); number; number = strtok(NULL, ",")) {
        if (options->node_count == REPLAY_MOST_SIZES)
            return replay_fail(error, "--nodes has more than %d numbers", REPLAY_MOST_SIZES);
        if (take_small("nodes", number, 64, &options->nodes[options->node_count++], error))
            return -1;
    }
    return options->node_count > 0 ? 0 : replay_fail(error, "--nodes names no number");
}

static int take_part(const char *option, const char *text, double unit, double *value, replay_error *error)
{
    double percent = 0;
    if (take_real(option, text, 1, &percent, error))
        return -1;
    if (percent > 100)
        return replay_fail(error, "--%s is \"%.40s\"; it is a percentage, 100 at most", option, text);
    *value = percent * unit;
    return 0;
}

static int take_plan_option(replay_options *options, int option, const char *name, replay_error *error)
{
    switch (option) {
    case CURVE: options->curve = optarg; return 0;
    case CHECK: return take_small(name, optarg, 40, &options->check, error);
    case PLAN: options->plan = true; return 0;
    case DEVICE_PRICE: return take_real(name, optarg, 1, &options->prices.device, error);
    case HOST_PRICE: return take_real(name, optarg, 1, &options->prices.host, error);
    case SHARE: return take_part(name, optarg, 0.01, &options->prices.share, error);
    case TTFT: return take_real(name, optarg, 1, &options->prices.ttft, error);
    default: return take_part(name, optarg, 1, &options->prices.percentile, error);
    }
}

static int take_trace_option(replay_options *options, int option, const char *name, replay_error *error)
{
    uint64_t bytes = 0;
    switch (option) {
    case PIECE_TOKENS: return take_small(name, optarg, 1 << 20, &options->read.piece_tokens, error);
    case REQUESTS: return take_whole(name, optarg, 1, UINT32_MAX - 1, &options->read.most_requests, error);
    case STRICT: options->read.strict = true; return 0;
    case MEMORY: return take_bytes(name, optarg, 1 << 16, &options->read.memory, error);
    default:
        if (take_bytes(name, optarg, 1 << 10, &bytes, error))
            return -1;
        options->read.longest_line = (size_t)bytes;
        return 0;
    }
}

static int take_option(replay_options *options, int option, const char *name, replay_error *error)
{
    options->model_given = options->model_given || (option >= LAYERS && option <= TOKEN_BYTES);
    switch (option) {
    case LAYERS: return take_small(name, optarg, 1024, &options->layers, error);
    case KV_HEADS: return take_small(name, optarg, 1024, &options->kv_heads, error);
    case HEAD_DIM: return take_small(name, optarg, 4096, &options->head_dim, error);
    case DTYPE: return take_dtype(optarg, &options->element_bytes, error);
    case TOKEN_BYTES: return take_bytes(name, optarg, 1, &options->token_bytes, error);
    case DEVICE:
        options->device_given = true;
        return replay_sizes_parse(name, optarg, &options->device, error);
    case HOST: options->host_given = true; return replay_sizes_parse(name, optarg, &options->host, error);
    case AS_RECORDED: options->as_recorded = true; return 0;
    case POLICY: options->policy_given = true; return take_policies(optarg, options, error);
    case OFFLOAD: return take_offloads(optarg, options, error);
    case BLOCK_TOKENS:
        options->block_given = true;
        return take_small(name, optarg, 4096, &options->block_tokens, error);
    case HINTS: options->hints = true; return 0;
    case NO_OUTPUT: options->output = false; return 0;
    case PIECES: options->pieces = true; return 0;
    case FLOOR: options->floor = true; return 0;
    case JSON: options->json = true; return 0;
    case QUIET: options->quiet = true; return 0;
    case HELP: fputs(help, stdout); exit(0);
    case VERSION: puts(quire_version_string()); exit(0);
    case '?': return replay_fail(error, "see quire-replay --help"); /* getopt has said what is wrong */
    case NODES: return take_nodes(optarg, options, error);
    case TIMED: options->timed = true; return 0;
    case PIECE_TOKENS:
    case REQUESTS:
    case STRICT:
    case MEMORY:
    case LONGEST_LINE: return take_trace_option(options, option, name, error);
    case CURVE:
    case CHECK:
    case PLAN:
    case DEVICE_PRICE:
    case HOST_PRICE:
    case SHARE:
    case TTFT:
    case PERCENTILE: return take_plan_option(options, option, name, error);
    default: return take_engine_option(&options->model, option, name, error);
    }
}

/* What a cache opened by this environment would have. */
static int take_defaults(replay_options *options, replay_error *error)
{
    quire_options library;
    if (quire_options_init(&library, sizeof library))
        return replay_fail(error, "%s", quire_error_text());
    *options = (replay_options){
        .read = {.piece_tokens = 512,
                 .memory = UINT64_C(8) << 30,
                 .longest_line = 64 << 20,
                 .warnings = stderr},
        .layers = 32,
        .kv_heads = 8,
        .head_dim = 128,
        .element_bytes = 2,
        .block_tokens = library.block_tokens,
        .output = true,
        .device = {{{10, REPLAY_PERCENT}}, 1},
        .host = {{{0, REPLAY_BYTES}}, 1},
        .policies = {library.policy},
        .policy_count = 1,
        .offloads = {library.offload == QUIRE_OFFLOAD_NONE ? QUIRE_OFFLOAD_WRITE_THROUGH : library.offload},
        .offload_count = 1,
        .prices = {.device = 20, .host = 1, .percentile = 95, .share = 0.9},
        .model = {.prefill_rate = 20000,
                  .decode_seconds = 0.02,
                  .offload_rate = 20.0 * (1 << 30),
                  .restore_rate = 20.0 * (1 << 30),
                  .speed = 1,
                  .batch = 256,
                  .step_tokens = 8192},
    };
    return 0;
}

int replay_options_parse(replay_options *options, int argc, char **argv, replay_error *error)
{
    int option, index = 0;
    optind = 1; /* a test calls this more than once */
    if (take_defaults(options, error))
        return -1;
    while ((option = getopt_long(argc, argv, "", names, &index)) != -1) {
        if (take_option(options, option, option == '?' ? "" : names[index].name, error))
            return -1;
    }
    if (optind == argc)
        return replay_fail(error, "no trace: give a file, or - for standard input; see quire-replay --help");
    if (optind + 1 < argc)
        return replay_fail(error, "\"%s\" is one argument too many; see quire-replay --help",
                           argv[optind + 1]);
    options->path = argv[optind];
    if (options->timed && (options->pieces || !options->output))
        return replay_fail(error,
                           "--timed generates the outputs: --pieces and --no-output do not go with it");
    if (options->plan && options->pieces)
        return replay_fail(error, "--plan reckons with an engine's tokens: --pieces does not go with it");
    if (options->timed && options->floor)
        return replay_fail(error, "--floor is of requests one after another: it does not go with --timed");
    if (options->pieces)
        options->output = false;
    return 0;
}

uint64_t replay_token_bytes(const replay_options *options)
{
    if (options->token_bytes > 0)
        return options->token_bytes;
    return UINT64_C(2) * options->layers * options->kv_heads * options->head_dim * options->element_bytes;
}
