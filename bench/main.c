/* main.c: quire-bench core | device | ceilings. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ceilings.h"
#include "core.h"
#include "device.h"

static const char usage[] =
    "Usage: quire-bench core [OPTION]...\n"
    "       quire-bench device [OPTION]...\n"
    "       quire-bench ceilings [OPTION]...\n"
    "\n"
    "core      what the bookkeeping costs: match, append, reserve, commit, evict, fork, truncate, close\n"
    "device    what moving and reading KV costs: block copy, packing, append, decode attention, restore, offload\n"
    "ceilings  what the machine reaches: large copies, links, batches of pieces, pages of all layers\n"
    "\n"
    "  --json FILE        write the figures to FILE too\n"
    "  --runs N           timed rounds of each figure, 5..1001 (default 31)\n"
    "  --seconds S        most seconds a figure, once it has 5 rounds, 1..3600 (default 5)\n"
    "  --help             this text\n"
    "core:\n"
    "  --full             arenas of 10k, 1M and 16M blocks with blocks of 1, 8, 16, 32, 64 and 128 tokens each;\n"
    "                     default: each arena with 16 tokens, and 1M blocks with each size\n"
    "  --blocks N --block-tokens N\n"
    "                     this arena, this block size only, of the above\n"
    "  --threads          only what threads of one cache lose to one another\n"
    "device, ceilings:\n"
    "  --layers N --kv-heads N --query-heads N --head-dim N\n"
    "                     the model (default 32, 8, 32, 128: that of Llama-3-8B)\n"
    "device:\n"
    "  --only PART,...    some of attend, prefill, shared, latent, copy, convert, pack, open, tiers,\n"
    "                     interfere\n"
    "  --batch N --context TOKENS\n"
    "                     decode attention over this batch only (default: all of a list that fit the arena)\n"
    "\n"
    "Block size, dtype, device, threads and sizes come from the QUIRE_* variables; without QUIRE_DEVICE_BYTES and\n"
    "QUIRE_HOST_BYTES, device takes 1 GiB and 512 MiB on the host, half of the memory and 2 GiB on a GPU.\n";

/* "128k": powers of 1024. */
static uint64_t number(const char *option, const char *text, uint64_t least, uint64_t most)
{
    char *end;

    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    bool wrong = end == text || *text == '-' || errno != 0 || value > most;
    if (!wrong && (*end == 'k' || *end == 'M')) {
        value *= *end == 'k' ? 1024 : 1024 * 1024;
        end++;
    }
    if (wrong || *end != '\0' || value < least || value > most)
        bench_die("--%s is '%s'; give a whole number from %llu to %llu", option, text, (unsigned long long)least,
                  (unsigned long long)most);
    return value;
}

static const struct option names[] = {
    {"json", required_argument, NULL, 'j'},        {"runs", required_argument, NULL, 'r'},
    {"seconds", required_argument, NULL, 's'},     {"help", no_argument, NULL, 'h'},
    {"threads", no_argument, NULL, 'T'},           {"full", no_argument, NULL, 'f'},              {"blocks", required_argument, NULL, 'n'},
    {"block-tokens", required_argument, NULL, 't'}, {"layers", required_argument, NULL, 'l'},
    {"kv-heads", required_argument, NULL, 'k'},    {"head-dim", required_argument, NULL, 'd'},
    {"query-heads", required_argument, NULL, 'q'}, {"batch", required_argument, NULL, 'b'},
    {"context", required_argument, NULL, 'c'},     {"only", required_argument, NULL, 'o'},
    {NULL, 0, NULL, 0},
};

static void take(bench_options *options, int letter, const char *name)
{
    switch (letter) {
    case 'j': options->json = optarg; break;
    case 'r': options->effort.runs = (uint32_t)number(name, optarg, 5, 1001); break;
    case 's': options->effort.seconds = (double)number(name, optarg, 1, 3600); break;
    case 'T': options->threads = true; break;
    case 'f': options->full = true; break;
    case 'n': options->blocks = number(name, optarg, 1 << 10, 16 << 20); break;
    case 't': options->block_tokens = (uint32_t)number(name, optarg, 1, 128); break;
    case 'l': options->layers = (uint32_t)number(name, optarg, 1, 1024); break;
    case 'k': options->kv_heads = (uint32_t)number(name, optarg, 1, 1024); break;
    case 'd': options->head_dim = (uint32_t)number(name, optarg, 8, 512); break;
    case 'q': options->query_heads = (uint32_t)number(name, optarg, 1, 65536); break;
    case 'b': options->batch = (uint32_t)number(name, optarg, 1, 65536); break;
    case 'c': options->context = (uint32_t)number(name, optarg, 2, 1 << 24); break;
    case 'o': options->only = optarg; break;
    case 'h': fputs(usage, stdout); exit(0);
    default: fputs("Try 'quire-bench --help'.\n", stderr); exit(2);
    }
}

int main(int argc, char **argv)
{
    bench_options options = {.effort = {.warmups = 2, .runs = 31, .seconds = 5},
                             .layers = 32,
                             .kv_heads = 8,
                             .head_dim = 128,
                             .query_heads = 32};
    int letter, index = 0;

    while ((letter = getopt_long(argc, argv, "", names, &index)) != -1)
        take(&options, letter, names[index].name);
    if (options.json != NULL) { /* now, not after minutes of measuring */
        FILE *file = fopen(options.json, "a");
        if (file == NULL || fclose(file) != 0)
            bench_die("cannot write %s: %s", options.json, strerror(errno));
    }
    if ((options.batch > 0) != (options.context > 0))
        bench_die("--batch and --context go together; give both or neither");
    const char *command = optind < argc ? argv[optind] : "";
    if (optind + 1 < argc)
        bench_die("'%s' is one argument too many; see quire-bench --help", argv[optind + 1]);
    if (strcmp(command, "core") == 0) {
        bench_core(&options);
    } else if (strcmp(command, "device") == 0) {
        bench_device(&options);
    } else if (strcmp(command, "ceilings") == 0) {
        bench_ceilings(&options);
    } else if (*command != '\0') {
        bench_die("'%s' is no benchmark; there are core, device and ceilings", command);
    } else {
        fputs(usage, stderr);
        return 2;
    }
    return 0;
}
