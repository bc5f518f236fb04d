/* config.c: from the table to quire_options and back.
 *
 * `quire__variables` says what each variable is; `fields` says where the library's own ones go. A value, whatever its
 * type, is a number or a text (`value`), so that the same three steps serve every variable: parse, check, store. The
 * check of what the caller wrote into the options afterwards (quire__config_validate) reads the same entries, so an
 * environment variable and its field can never have different ranges.
 */
#include "base/config.h"

#include <ctype.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/status.h"

extern char **environ;

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* ---- the table --------------------------------------------------------------------------------------------- */

static const char *const dtype_names[] = {"f32", "f16", "bf16", "fp8", "fp8_e5m2", "int8", "int4", NULL}; /* QUIRE_DTYPE_F32 is the first */
static const char *const policy_names[] = {"learned", "lru", "slru", "s3fifo", "lfu", "gdsf", "priority", NULL};
static const char *const offload_names[] = {"none", "write-through", "write-back", "selective", NULL};
static const char *const checksum_names[] = {"off", "restore", NULL};
static const char *const pin_names[] = {"background", "open", NULL};
static const char *const pack_names[] = {"off", "on", "auto", NULL};
static const char *const pieces_names[] = {"copy", "gather", "auto", NULL};
static const char *const log_names[] = {"off", "error", "warn", "info", "debug", NULL};

#define PETA_BYTES ((uint64_t)1 << 50)

const quire__variable quire__variables[] = {
    {"QUIRE_DEVICE", QUIRE__VARIABLE_TEXT, "auto", 0, 0, NULL, "",
     "Where the arena and the kernels are: `host`, `cuda:N`, `sim:SEED`, or `auto`, which is `cuda:0` where there is "
     "one and else `host`.",
     "library"},
    {"QUIRE_BLOCK_TOKENS", QUIRE__VARIABLE_POWER, "16", 1, 256, NULL, "tokens", "Tokens in a block.", "library"},
    {"QUIRE_DTYPE", QUIRE__VARIABLE_CHOICE, "bf16", 0, 0, dtype_names, "",
     "Format of K and V in the cache, for groups that name none; docs/design.md says what each costs.", "library"},
    {"QUIRE_DEVICE_BYTES", QUIRE__VARIABLE_BYTES, "512M", 1, PETA_BYTES, NULL, "bytes",
     "Size of the arena, rounded down to whole blocks; at least two blocks.", "library"},
    {"QUIRE_DEVICE_MAX_BYTES", QUIRE__VARIABLE_BYTES, "0", 0, PETA_BYTES, NULL, "bytes",
     "Up to which `quire_cache_resize` may let the arena grow; 0: it keeps its size.", "library"},
    {"QUIRE_HOST_BYTES", QUIRE__VARIABLE_BYTES, "1G", 0, PETA_BYTES, NULL, "bytes",
     "Size of the host tier, rounded down to whole blocks; 0: none.", "library"},
    {"QUIRE_MAX_SEQUENCES", QUIRE__VARIABLE_COUNT, "256", 1, 65536, NULL, "sequences",
     "Sequences open at the same time.", "library"},
    {"QUIRE_MAX_SEQ_TOKENS", QUIRE__VARIABLE_COUNT, "0", 0, 1 << 30, NULL, "tokens",
     "Longest sequence; 0: as long as the arena.", "library"},
    {"QUIRE_MAX_STEP_TOKENS", QUIRE__VARIABLE_COUNT, "8192", 1, 1 << 24, NULL, "tokens", "Most tokens of one step.",
     "library"},
    {"QUIRE_MAX_DOMAINS", QUIRE__VARIABLE_COUNT, "1024", 1, 1 << 20, NULL, "domains",
     "Domains with an open sequence or a cached block, at the same time.", "library"},
    {"QUIRE_WATERMARK_BLOCKS", QUIRE__VARIABLE_COUNT, "0", 0, INT32_MAX, NULL, "blocks",
     "Blocks kept free of sequences that have not computed anything yet.", "library"},
    {"QUIRE_POLICY", QUIRE__VARIABLE_CHOICE, "learned", 0, 0, policy_names, "",
     "Which cached block eviction picks; docs/policies.md says when to choose what.",
     "library"},
    {"QUIRE_PIN_BLOCKS", QUIRE__VARIABLE_COUNT, "0", 0, INT32_MAX, NULL, "blocks",
     "Most blocks of a tier that hints may pin, under the policy `priority`.", "library"},
    {"QUIRE_OFFLOAD", QUIRE__VARIABLE_CHOICE, "write-through", 0, 0, offload_names, "",
     "`write-through`: a sealed block is copied to the host behind the step that sealed it; `write-back`: a block is copied "
     "when it is about to be evicted; `selective`: the same, but only what is likely enough to come back; `none`: an evicted "
     "block is gone.",
     "library"},
    {"QUIRE_OFFLOAD_LOW_BLOCKS", QUIRE__VARIABLE_COUNT, "0", 0, INT32_MAX, NULL, "blocks",
     "Under `write-back` and `selective`: with fewer blocks than this free or ready to go, those that would go next are "
     "offloaded; 0: a sixteenth of the arena, or twice what one step may take if that is more.",
     "library"},
    {"QUIRE_OFFLOAD_HIGH_BLOCKS", QUIRE__VARIABLE_COUNT, "0", 0, INT32_MAX, NULL, "blocks",
     "Until so many are; 0: twice the low one. At most half the arena.", "library"},
    {"QUIRE_CHECKSUM", QUIRE__VARIABLE_CHOICE, "restore", 0, 0, checksum_names, "",
     "`restore`: computed when a block reaches the host, verified before it returns.", "library"},
    {"QUIRE_HOST_PIN", QUIRE__VARIABLE_CHOICE, "background", 0, 0, pin_names, "",
     "`background`: the host tier's memory is pinned piece by piece while the cache serves already; `open`: all of it at open.",
     "library"},
    {"QUIRE_HOST_PIN_BYTES", QUIRE__VARIABLE_BYTES, "64M", 1, PETA_BYTES, NULL, "bytes",
     "Host memory that is pinned at a time; the first piece at open.", "library"},
    {"QUIRE_PACK", QUIRE__VARIABLE_CHOICE, "auto", 0, 0, pack_names, "",
     "`on`: blocks are packed, without loss, on their way to the host, and take 78 % there (bf16 only); `auto`: where that is "
     "faster.",
     "library"},
    {"QUIRE_PIECES", QUIRE__VARIABLE_CHOICE, "auto", 0, 0, pieces_names, "",
     "How blocks cross that are not packed: by copies (`copy`), or gathered by a kernel (`gather`); `auto`: what is faster.",
     "library"},
    {"QUIRE_CALIBRATION", QUIRE__VARIABLE_TEXT, "", 0, 0, NULL, "",
     "File that remembers what `auto` found to be faster on this device; `off`: nothing is measured, and `auto` packs nothing; "
     "not set: one in `$XDG_CACHE_HOME/quire` or `~/.cache/quire`.",
     "library"},
    {"QUIRE_RESTORE_PARTS", QUIRE__VARIABLE_COUNT, "1", 1, 8, NULL, "groups of layers",
     "Restores arrive in so many groups of layers, and a step may run as soon as the first is there; 1: it waits for all.",
     "library"},
    {"QUIRE_EVENTS", QUIRE__VARIABLE_COUNT, "0", 0, 1 << 24, NULL, "events",
     "Events kept for `quire_cache_events`; 0: none.", "library"},
    {"QUIRE_THREADS", QUIRE__VARIABLE_COUNT, "0", 0, 1024, NULL, "threads",
     "Threads of the host device's kernels; 0: one a core.", "library"},
    {"QUIRE_DETERMINISTIC", QUIRE__VARIABLE_SWITCH, "0", 0, 1, NULL, "",
     "1: a token's result depends on its own context only, on CUDA too (on the host it always does).", "library"},
    {"QUIRE_MOVE_TIMEOUT_MS", QUIRE__VARIABLE_COUNT, "30000", 1, 3600000, NULL, "milliseconds",
     "An asynchronous copy that takes longer has failed.", "library"},
    {"QUIRE_HASH_KEY", QUIRE__VARIABLE_COUNT, "0", 0, UINT64_MAX, NULL, "",
     "Key of the prefix table's hash; 0: random. Set it to repeat a run exactly.", "library"},
    {"QUIRE_TRACE", QUIRE__VARIABLE_TEXT, "", 0, 0, NULL, "",
     "File to which a cache records what it is asked, for `quire-replay` (a process's second cache: FILE.2); not set: "
     "none.",
     "library"},
    {"QUIRE_TRACE_TOKENS", QUIRE__VARIABLE_SWITCH, "0", 0, 1, NULL, "",
     "1: the recording has token ids; 0: hashes of prefixes under a key that is kept nowhere.", "library"},
    {"QUIRE_LOG", QUIRE__VARIABLE_CHOICE, "warn", 0, 0, log_names, "",
     "How much the library says on stderr, or to the program's log function; `info` lists every variable at open.",
     "library"},

    {"QUIRE_MODEL", QUIRE__VARIABLE_TEXT, "", 0, 0, NULL, "",
     "GGUF file of the model that the examples, the demo and the tests run; not set: SmolLM2-135M-Instruct, fetched by "
     "`scripts/fetch_model`.",
     "examples"},
    {"QUIRE_MODEL_GEMMA", QUIRE__VARIABLE_TEXT, "", 0, 0, NULL, "",
     "GGUF file of Gemma 3 270M, as `scripts/fetch_model gemma` fetches it; not set: the tests that need it are skipped.",
     "tests"},
    {"QUIRE_BUILD_DIR", QUIRE__VARIABLE_TEXT, "build", 0, 0, NULL, "",
     "Folder that `scripts/demo`, `scripts/test` and `scripts/gpu` build in.", "scripts"},
    {"QUIRE_TEST_SEED", QUIRE__VARIABLE_COUNT, "", 0, UINT64_MAX, NULL, "",
     "First seed of the random tests, as a failing one printed it; not set: each test's own.", "tests"},
    {"QUIRE_TEST_SEEDS", QUIRE__VARIABLE_COUNT, "", 1, UINT32_MAX, NULL, "seeds",
     "Seeds that random tests try; not set: each test's own number.", "tests"},
    {"QUIRE_TEST_SMALL", QUIRE__VARIABLE_SWITCH, "0", 0, 1, NULL, "",
     "1: a short run: kernel tests try fewer shapes, random tests fewer seeds.", "tests"},
    {"QUIRE_TEST_TRACE", QUIRE__VARIABLE_TEXT, "", 0, 0, NULL, "",
     "A whole request trace that the replay tests compare with a simple simulator; not set: they skip that.", "tests"},
    {"QUIRE_EMU_SEED", QUIRE__VARIABLE_COUNT, "0", 0, UINT32_MAX, NULL, "",
     "Order in which the kernel emulator runs the threads of a block.", "tests"},
    {"QUIRE_EMU_THREADS", QUIRE__VARIABLE_COUNT, "", 1, 64, NULL, "threads",
     "Threads that the kernel emulator spreads blocks over; not set: one a core.", "tests"},
};
const size_t quire__variable_count = LENGTH(quire__variables);

const char *quire_dtype_name(quire_dtype dtype)
{
    if (dtype < QUIRE_DTYPE_F32 || dtype > QUIRE_DTYPE_INT4)
        return "unknown";
    return dtype_names[dtype - QUIRE_DTYPE_F32];
}

/* Where a library variable goes. A choice is stored as its place in the list plus `first`, or, into a text, as its
 * name. */
typedef struct field {
    const char *name;
    const char *option;
    size_t offset, size;
    bool text;
    int first;
} field;

#define NUMBER(name, member) \
    {name, #member, offsetof(quire_options, member), sizeof(((quire_options *)0)->member), false, 0}
#define TEXT(name, member) {name, #member, offsetof(quire_options, member), sizeof(char *), true, 0}

static const field fields[] = {
    TEXT("QUIRE_DEVICE", device),
    NUMBER("QUIRE_BLOCK_TOKENS", block_tokens),
    {"QUIRE_DTYPE", "dtype", offsetof(quire_options, dtype), sizeof(quire_dtype), false, QUIRE_DTYPE_F32},
    NUMBER("QUIRE_DEVICE_BYTES", device_bytes),
    NUMBER("QUIRE_DEVICE_MAX_BYTES", device_max_bytes),
    NUMBER("QUIRE_HOST_BYTES", host_bytes),
    NUMBER("QUIRE_MAX_SEQUENCES", max_sequences),
    NUMBER("QUIRE_MAX_SEQ_TOKENS", max_seq_tokens),
    NUMBER("QUIRE_MAX_STEP_TOKENS", max_step_tokens),
    NUMBER("QUIRE_MAX_DOMAINS", max_domains),
    NUMBER("QUIRE_WATERMARK_BLOCKS", watermark_blocks),
    TEXT("QUIRE_POLICY", policy),
    NUMBER("QUIRE_OFFLOAD", offload),
    NUMBER("QUIRE_OFFLOAD_LOW_BLOCKS", offload_low_blocks),
    NUMBER("QUIRE_OFFLOAD_HIGH_BLOCKS", offload_high_blocks),
    NUMBER("QUIRE_CHECKSUM", checksum),
    NUMBER("QUIRE_RESTORE_PARTS", restore_parts),
    NUMBER("QUIRE_EVENTS", event_capacity),
    NUMBER("QUIRE_THREADS", threads),
    NUMBER("QUIRE_DETERMINISTIC", deterministic),
    NUMBER("QUIRE_MOVE_TIMEOUT_MS", move_timeout_ms),
    NUMBER("QUIRE_HASH_KEY", hash_key),
    NUMBER("QUIRE_PIN_BLOCKS", pin_blocks),
    NUMBER("QUIRE_HOST_PIN", host_pin),
    NUMBER("QUIRE_HOST_PIN_BYTES", host_pin_bytes),
    NUMBER("QUIRE_PACK", pack),
    NUMBER("QUIRE_PIECES", pieces),
    TEXT("QUIRE_CALIBRATION", calibration),
    TEXT("QUIRE_TRACE", trace),
    NUMBER("QUIRE_TRACE_TOKENS", trace_tokens),
    NUMBER("QUIRE_LOG", log_level),
};

/* A number, or a text; a choice is both: its place in the list and its name. */
typedef struct value {
    uint64_t number;
    const char *text;
} value;

const quire__variable *quire__variable_find(const char *name)
{
    for (size_t i = 0; i < quire__variable_count; i++) {
        if (strcmp(quire__variables[i].name, name) == 0)
            return &quire__variables[i];
    }
    return NULL;
}

/* ---- text of a range --------------------------------------------------------------------------------------- */

static void bytes_text(uint64_t bytes, char *text, size_t capacity)
{
    static const char suffixes[] = "KMGT";
    size_t power = 0;
    while (power < 4 && bytes != 0 && bytes % 1024 == 0) {
        bytes /= 1024;
        power++;
    }
    if (power == 0)
        snprintf(text, capacity, "%llu", (unsigned long long)bytes);
    else
        snprintf(text, capacity, "%llu%c", (unsigned long long)bytes, suffixes[power - 1]);
}

void quire__variable_range(const quire__variable *variable, char *text, size_t capacity)
{
    const char *space = variable->unit[0] ? " " : "";
    switch (variable->type) {
    case QUIRE__VARIABLE_COUNT:
    case QUIRE__VARIABLE_POWER:
        snprintf(text, capacity, "%llu..%llu%s%s%s", (unsigned long long)variable->least,
                 (unsigned long long)variable->most, space, variable->unit,
                 variable->type == QUIRE__VARIABLE_POWER ? ", a power of two" : "");
        return;
    case QUIRE__VARIABLE_BYTES: {
        char least[32], most[32];
        bytes_text(variable->least, least, sizeof(least));
        bytes_text(variable->most, most, sizeof(most));
        snprintf(text, capacity, "%s..%s%s%s, K M G T allowed", least, most, space, variable->unit);
        return;
    }
    case QUIRE__VARIABLE_CHOICE: {
        size_t used = 0;
        text[0] = 0;
        for (size_t i = 0; variable->choices[i] && used < capacity; i++)
            used += (size_t)snprintf(text + used, capacity - used, "%s%s", i ? ", " : "", variable->choices[i]);
        return;
    }
    case QUIRE__VARIABLE_SWITCH: snprintf(text, capacity, "0 or 1"); return;
    case QUIRE__VARIABLE_TEXT: snprintf(text, capacity, "a text"); return;
    }
}

/* ---- parse and check --------------------------------------------------------------------------------------- */

static int suffix_shift(char suffix)
{
    switch (toupper((unsigned char)suffix)) {
    case 'K': return 10;
    case 'M': return 20;
    case 'G': return 30;
    case 'T': return 40;
    default: return -1;
    }
}

/* Decimal, or hexadecimal behind 0x; with `suffixes`, one of K M G T behind it. No sign, no space, no overflow. */
static bool parse_number(const char *text, bool suffixes, uint64_t *number)
{
    const unsigned base = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10;
    const char *at = base == 16 ? text + 2 : text;
    const char *digits = at;
    uint64_t sum = 0;

    for (; isxdigit((unsigned char)*at) && (base == 16 || isdigit((unsigned char)*at)); at++) {
        int character = tolower((unsigned char)*at);
        unsigned digit = (unsigned)(isdigit(character) ? character - '0' : character - 'a' + 10);
        if (sum > (UINT64_MAX - digit) / base)
            return false;
        sum = sum * base + digit;
    }
    if (at == digits)
        return false;
    if (suffixes && *at) {
        int shift = suffix_shift(*at++);
        if (shift < 0 || sum > UINT64_MAX >> shift)
            return false;
        sum <<= shift;
    }
    *number = sum;
    return *at == 0;
}

static bool in_range(const quire__variable *variable, uint64_t number)
{
    if (number < variable->least || number > variable->most)
        return false;
    return variable->type != QUIRE__VARIABLE_POWER || (number & (number - 1)) == 0;
}

static bool parse_value(const quire__variable *variable, const char *text, value *result)
{
    *result = (value){0, text};
    switch (variable->type) {
    case QUIRE__VARIABLE_COUNT:
    case QUIRE__VARIABLE_POWER:
    case QUIRE__VARIABLE_SWITCH:
        return parse_number(text, false, &result->number) && in_range(variable, result->number);
    case QUIRE__VARIABLE_BYTES: return parse_number(text, true, &result->number) && in_range(variable, result->number);
    case QUIRE__VARIABLE_CHOICE:
        for (size_t i = 0; variable->choices[i]; i++) {
            if (strcmp(text, variable->choices[i]) == 0) {
                *result = (value){i, variable->choices[i]};
                return true;
            }
        }
        return false;
    case QUIRE__VARIABLE_TEXT: return true;
    }
    return false;
}

/* ---- fields of quire_options ------------------------------------------------------------------------------- */

static void store(quire_options *options, const field *field, value value)
{
    char *at = (char *)options + field->offset;
    if (field->text) {
        memcpy(at, &value.text, sizeof(value.text));
    } else if (field->size == sizeof(uint32_t)) {
        uint32_t number = (uint32_t)value.number + (uint32_t)field->first;
        memcpy(at, &number, sizeof(number));
    } else {
        memcpy(at, &value.number, sizeof(value.number));
    }
}

static value load(const quire_options *options, const field *field)
{
    const char *at = (const char *)options + field->offset;
    value value = {0, NULL};
    if (field->text) {
        memcpy(&value.text, at, sizeof(value.text));
    } else if (field->size == sizeof(uint32_t)) {
        uint32_t number;
        memcpy(&number, at, sizeof(number));
        value.number = (uint32_t)(number - (uint32_t)field->first);
    } else {
        memcpy(&value.number, at, sizeof(value.number));
    }
    return value;
}

/* What the environment says, or NULL. */
static const char *environment_text(const char *name)
{
    const char *text = getenv(name);
    return text && text[0] ? text : NULL;
}

quire_status quire__config_read(quire_options *options)
{
    quire_options result = *options;
    for (size_t i = 0; i < LENGTH(fields); i++) {
        const quire__variable *variable = quire__variable_find(fields[i].name);
        const char *text = environment_text(variable->name);
        value value;
        if (!parse_value(variable, text ? text : variable->standard, &value)) {
            char range[160];
            quire__variable_range(variable, range, sizeof(range));
            return quire__fail(QUIRE_EINVAL, "%s=%.64s: expected %s", variable->name, text, range);
        }
        store(&result, &fields[i], value);
    }
    *options = result;
    return QUIRE_OK;
}

quire_status quire_options_init(quire_options *options, size_t size)
{
    if (!options)
        return quire__fail(QUIRE_EINVAL, "quire_options_init: options is NULL");
    if (size != sizeof(quire_options))
        return quire__fail(QUIRE_EINVAL, "quire_options_init: size is %zu, this library's quire_options has %zu bytes",
                           size, sizeof(quire_options));
    quire_options result = {.size = size};
    QUIRE__TRY(quire__config_read(&result));
    *options = result;
    return QUIRE_OK;
}

/* ---- validation -------------------------------------------------------------------------------------------- */

static quire_status check_field(const quire_options *options, const field *field)
{
    const quire__variable *variable = quire__variable_find(field->name);
    const value value = load(options, field);
    char range[160];
    quire__variable_range(variable, range, sizeof(range));

    if (field->text) {
        if (variable->standard[0] == '\0' && (!value.text || !value.text[0]))
            return QUIRE_OK; /* what is not set by default need not be set */
        if (!value.text || !value.text[0])
            return quire__fail(QUIRE_EINVAL, "options.%s is empty: expected %s", field->option, range);
        struct value ignored;
        if (!parse_value(variable, value.text, &ignored))
            return quire__fail(QUIRE_EINVAL, "options.%s is \"%.64s\": expected %s", field->option, value.text, range);
        return QUIRE_OK;
    }
    if (variable->type == QUIRE__VARIABLE_CHOICE) {
        size_t choices = 0;
        while (variable->choices[choices])
            choices++;
        if (value.number >= choices)
            return quire__fail(QUIRE_EINVAL, "options.%s is no quire_%s: expected that of %s", field->option,
                               field->option, range);
        return QUIRE_OK;
    }
    if (!in_range(variable, value.number))
        return quire__fail(QUIRE_EINVAL, "options.%s is %llu: expected %s", field->option,
                           (unsigned long long)value.number, range);
    return QUIRE_OK;
}

quire_status quire__config_validate(const quire_options *options)
{
    if (!options)
        return quire__fail(QUIRE_EINVAL, "options is NULL: fill it with quire_options_init");
    if (options->size != sizeof(quire_options))
        return quire__fail(QUIRE_EINVAL, "options.size is %zu: expected %zu; fill it with quire_options_init",
                           options->size, sizeof(quire_options));
    for (size_t i = 0; i < LENGTH(fields); i++)
        QUIRE__TRY(check_field(options, &fields[i]));
    if (!options->alloc != !options->free)
        return quire__fail(QUIRE_EINVAL, "options.alloc and options.free go together: set both or neither");
    return QUIRE_OK;
}

/* ---- what is in force -------------------------------------------------------------------------------------- */

static bool same_value(const field *field, value a, value b)
{
    return field->text ? a.text && b.text && strcmp(a.text, b.text) == 0 : a.number == b.number;
}

static const char *source_of(const quire__variable *variable, const field *field, value now)
{
    const char *text = environment_text(variable->name);
    value then;
    if (text && parse_value(variable, text, &then) && same_value(field, now, then))
        return "environment";
    if (!text && parse_value(variable, variable->standard, &then) && same_value(field, now, then))
        return "default";
    return "caller";
}

static void log_field(const quire__log *log, const quire_options *options, const field *field)
{
    const quire__variable *variable = quire__variable_find(field->name);
    const value now = load(options, field);
    char number[32];
    const char *text = number;
    if (field->text)
        text = now.text ? now.text : "";
    else if (variable->type == QUIRE__VARIABLE_CHOICE)
        text = variable->choices[now.number];
    else if (variable->type == QUIRE__VARIABLE_BYTES)
        bytes_text(now.number, number, sizeof(number));
    else
        snprintf(number, sizeof(number), "%llu", (unsigned long long)now.number);
    quire__log_line(log, QUIRE_LOG_INFO, "%s=%s (%s)", variable->name, text, source_of(variable, field, now));
}

static size_t smallest(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Levenshtein's distance. Names longer than a row have no neighbours. */
static size_t distance(const char *a, const char *b)
{
    size_t row[64];
    const size_t length = strlen(b);
    if (length >= LENGTH(row))
        return SIZE_MAX;
    for (size_t j = 0; j <= length; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < length; j++) {
            size_t above = row[j + 1];
            row[j + 1] = smallest(row[j] + 1, above + 1, diagonal + (a[i] != b[j]));
            diagonal = above;
        }
    }
    return row[length];
}

const char *quire__variable_nearest(const char *name)
{
    const char *nearest = NULL;
    size_t least = 1 + strlen(name) / 3; /* beyond a third of its letters it is another word, not a slip */
    for (size_t i = 0; i < quire__variable_count; i++) {
        size_t apart = distance(name, quire__variables[i].name);
        if (apart < least) {
            least = apart;
            nearest = quire__variables[i].name;
        }
    }
    return nearest;
}

static void warn_unknown(const quire__log *log)
{
    static const char prefix[] = "QUIRE_";
    for (char **entry = environ; entry && *entry; entry++) {
        const char *equals = strchr(*entry, '=');
        char name[128];
        if (strncmp(*entry, prefix, sizeof(prefix) - 1) != 0 || !equals)
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)(equals - *entry), *entry);
        if (quire__variable_find(name))
            continue;
        const char *nearest = quire__variable_nearest(name);
        quire__log_line(log, QUIRE_LOG_WARN, "%s is not a variable that Quire knows%s%s%s", name,
                        nearest ? ": did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
    }
}

void quire__config_log(const quire_options *options)
{
    static atomic_flag warned = ATOMIC_FLAG_INIT;
    const quire__log log = {options->log_level, options->log, options->log_user};

    if (log.level >= QUIRE_LOG_WARN && !atomic_flag_test_and_set(&warned))
        warn_unknown(&log);
    if (log.level < QUIRE_LOG_INFO)
        return;
    for (size_t i = 0; i < LENGTH(fields); i++)
        log_field(&log, options, &fields[i]);
}
