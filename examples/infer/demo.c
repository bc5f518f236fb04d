/* quire-demo: the main job. Serves six workloads on a real model, with the cache off and on, and compares every token.
 * Exit status 0: all identical, every bar met; 1: not; 2: the command line is wrong. */
#include "demo_workloads.h"
#include "json_write.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEAST_REUSE 0.90   /* of the reusable prompt tokens of every request of workload a after the first */
#define LEAST_SPEEDUP 8.0  /* of its time to first token */
#define LEAST_RESTORED 0.90 /* of the reusable prompt tokens of workload f that the arena has no longer */
#define MOST_ARENA 0.10     /* of workload f's working set */

typedef struct workload_result {
    demo_run off, on;
    bool identical;
} workload_result;

typedef struct arguments {
    const char *model, *texts, *device, *json, *only;
} arguments;

static const char help[] =
    "Usage: quire-demo --model FILE.gguf [options]\n"
    "\n"
    "Serves six workloads on the model, each with the cache off and on, and compares every generated token.\n"
    "\n"
    "  --model FILE    a GGUF file, Llama family with a chat template or Gemma 3 (or QUIRE_MODEL)\n"
    "  --device NAME   host, cuda:N or auto (default: QUIRE_DEVICE, auto)\n"
    "  --texts FOLDER  the texts (default: those of the source tree)\n"
    "  --only LETTERS  of the workloads, say bf; the others' bars are left out\n"
    "  --json FILE     write all figures there\n"
    "  --help\n";

static int parse_arguments(int argc, char **argv, arguments *a, infer_error *error)
{
    static const struct option options[] = {
        { "model", required_argument, NULL, 'm' }, { "device", required_argument, NULL, 'd' },
        { "texts", required_argument, NULL, 't' }, { "json", required_argument, NULL, 'j' },
        { "only", required_argument, NULL, 'o' },  { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    int option;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case 'm': a->model = optarg; break;
        case 'd': a->device = optarg; break;
        case 't': a->texts = optarg; break;
        case 'j': a->json = optarg; break;
        case 'o': a->only = optarg; break;
        case 'h': fputs(help, stdout); exit(0);
        default: return infer_fail(error, "see quire-demo --help");
        }
    }
    if (optind < argc) return infer_fail(error, "\"%s\" belongs to no option; see quire-demo --help", argv[optind]);
    if (a->only && (!*a->only || strspn(a->only, "abcdef") != strlen(a->only)))
        return infer_fail(error, "--only is \"%s\"; it must be letters of a to f", a->only);
    if (!a->model) a->model = getenv("QUIRE_MODEL");
    if (!a->model || !*a->model) return infer_fail(error, "no model: give --model FILE.gguf or set QUIRE_MODEL");
    return 0;
}

/* ---- progress ---------------------------------------------------------------------------------------------- */

static void show_progress(void *user, char name, bool reuse, size_t done, size_t total, const demo_run *run)
{
    bool terminal = *(bool *)user, last = done == total;
    if (!terminal && !last) return;
    double rate = (double)(run->prompt_tokens + run->generated_tokens) / (run->seconds > 0 ? run->seconds : 1);
    fprintf(stderr, "%sworkload %c, cache %-3s  %2zu/%zu requests, %6.1f s, %6.0f tokens/s%s", terminal ? "\r" : "",
            name, reuse ? "on" : "off", done, total, run->seconds, rate, terminal && !last ? "" : "\n");
    fflush(stderr);
}

/* ---- the table --------------------------------------------------------------------------------------------- */

static double served_rate(const demo_run *run)
{
    return run->seconds > 0 ? (double)(run->prompt_tokens + run->generated_tokens) / run->seconds : 0;
}

static bool was_run(const workload_result *r)
{
    return r->on.requests > 0;
}

static void print_row(const char *title, const workload_result *r)
{
    const demo_run *on = &r->on;
    printf("%-33s %4zu %7zu %7zu %8zu %8zu %5llu %7llu %8.0f %8.0f %7.0f %7.0f  %s\n", title, on->requests,
           on->prompt_tokens, on->device, on->host, on->computed, (unsigned long long)on->stats.copies_on_write,
           (unsigned long long)on->stats.evictions_device, 1e3 * demo_run_median_first_token(&r->off, 0),
           1e3 * demo_run_median_first_token(on, 0), served_rate(&r->off), served_rate(on),
           r->identical ? "yes" : "NO");
}

static void print_table(const workload_result *results)
{
    printf("\n%-33s %4s %7s %7s %8s %8s %5s %7s %17s %15s\n", "", "", "prompt", "reused", "restored", "", "", "",
           "first token, ms", "tokens/s");
    printf("%-33s %4s %7s %7s %8s %8s %5s %7s %8s %8s %7s %7s  %s\n", "workload", "reqs", "tokens", "device",
           "host", "computed", "CoW", "evicted", "off", "on", "off", "on", "identical");
    for (size_t i = 0; i < DEMO_WORKLOADS; i++)
        if (was_run(&results[i])) print_row(demo_workload_title(i), &results[i]);
    printf("\nTokens are counted with the cache on, preempted work again when it is repeated. First token: median over\n"
           "requests, from admission to the first token. tokens/s: prompt and generated tokens served, a second.\n"
           "identical: every token, and the bits of every log probability, as with the cache off.\n\n");
}

/* ---- the verdict ------------------------------------------------------------------------------------------- */

typedef struct verdict {
    bool identical, reuse, speedup, restored, separate, small, returned, cheapest;
    double least_reuse, speedup_factor, arena_share, returned_share;
    size_t dearer; /* tokens of f that were computed although to restore them was cheaper */
} verdict;

static void judge_tenth(const demo_run *f, verdict *v)
{
    size_t evicted = f->reusable > f->device ? f->reusable - f->device : 0;
    v->arena_share = f->working_set ? (double)f->arena / (double)f->working_set : 1;
    v->small = v->arena_share <= MOST_ARENA;
    v->returned_share = evicted ? (double)f->host / (double)evicted : 0;
    v->returned = v->returned_share >= LEAST_RESTORED;
    v->dearer = (size_t)(f->stats.tokens_no_room + f->stats.tokens_busy);
    v->cheapest = v->dearer == 0 && f->stats.restore_failures == 0;
}

static verdict judge(const workload_result *results)
{
    const workload_result *a = &results[0], *d = &results[3], *e = &results[4];
    double off = demo_run_median_first_token(&a->off, 1), on = demo_run_median_first_token(&a->on, 1);
    verdict v = { .identical = true, .least_reuse = a->on.least_reuse, .speedup_factor = on > 0 ? off / on : 0 };
    for (size_t i = 0; i < DEMO_WORKLOADS; i++)
        v.identical = v.identical && (results[i].identical || !was_run(&results[i]));
    v.reuse = v.least_reuse >= LEAST_REUSE || !was_run(a);
    v.speedup = v.speedup_factor >= LEAST_SPEEDUP || !was_run(a);
    v.restored = (d->on.host > 0 && d->on.stats.evictions_device > 0) || !was_run(d);
    v.separate = (e->on.foreign == 0 && e->on.reused > 0) || !was_run(e);
    v.small = v.returned = v.cheapest = true;
    if (was_run(&results[5])) judge_tenth(&results[5].on, &v);
    return v;
}

static void print_tenth(const verdict *v, const demo_run *f)
{
    printf("f: arena of the working set, %5zu of %5zu tokens     %7.1f %%   (bar %.0f %%)   %s\n", f->arena, f->working_set,
           100 * v->arena_share, 100 * MOST_ARENA, v->small ? "met" : "MISSED");
    printf("f: of %zu reusable tokens %zu were in the arena; of the\n   other %zu came back from host memory %19.1f %%   "
           "(bar %.0f %%)   %s\n", f->reusable, f->device, f->reusable - f->device, 100 * v->returned_share,
           100 * LEAST_RESTORED, v->returned ? "met" : "MISSED");
    printf("f: computed although to restore it was cheaper       %7zu tokens            %s\n", v->dearer,
           v->cheapest ? "none" : "SOME");
    printf("   (a block restored %.0f us, computed %.0f us; %llu tokens left on the host as cheaper to compute)\n",
           f->stats.restore_block_us, f->stats.compute_block_us, (unsigned long long)f->stats.tokens_declined);
}

static void print_verdict(const verdict *v, const workload_result *results)
{
    if (was_run(&results[0])) {
        printf("a: least reuse of a request's reusable prompt tokens   %5.1f %%   (bar %.0f %%)   %s\n",
               100 * v->least_reuse, 100 * LEAST_REUSE, v->reuse ? "met" : "MISSED");
        printf("a: first token with the cache off / on, after the first %5.1f x   (bar %.0f x)    %s\n",
               v->speedup_factor, LEAST_SPEEDUP, v->speedup ? "met" : "MISSED");
    }
    if (was_run(&results[3]))
        printf("d: evicted and restored from host memory             %7zu tokens            %s\n", results[3].on.host,
               v->restored ? "yes" : "NO");
    if (was_run(&results[4]))
        printf("e: taken from another tenant                         %7zu tokens            %s\n",
               results[4].on.foreign, v->separate ? "none" : "SHARED");
    if (was_run(&results[5])) print_tenth(v, &results[5].on);
    printf("identical: %s\n", v->identical ? "yes" : "NO");
}

static void write_run(json_writer *json, const char *key, const demo_run *run)
{
    json_begin(json, key, '{');
    json_count(json, "requests", run->requests);
    json_count(json, "prompt_tokens", run->prompt_tokens);
    json_count(json, "generated_tokens", run->generated_tokens);
    json_count(json, "reusable", run->reusable);
    json_count(json, "reused", run->reused);
    json_real(json, "least_reuse", run->least_reuse);
    json_count(json, "reused_device", run->device);
    json_count(json, "restored_host", run->host);
    json_count(json, "computed", run->computed);
    json_count(json, "preemptions", run->preemptions);
    json_count(json, "copies_on_write", run->stats.copies_on_write);
    json_count(json, "evictions_device", run->stats.evictions_device);
    json_count(json, "evictions_host", run->stats.evictions_host);
    json_count(json, "restores", run->stats.restores);
    json_count(json, "offloads", run->stats.offloads);
    json_count(json, "working_set", run->working_set);
    json_count(json, "arena", run->arena);
    json_count(json, "tokens_declined", run->stats.tokens_declined);
    json_count(json, "tokens_no_room", run->stats.tokens_no_room);
    json_count(json, "tokens_busy", run->stats.tokens_busy);
    json_real(json, "restore_block_us", run->stats.restore_block_us);
    json_real(json, "compute_block_us", run->stats.compute_block_us);
    json_real(json, "first_token_s", demo_run_median_first_token(run, 0));
    json_real(json, "seconds", run->seconds);
    json_real(json, "tokens_per_s", served_rate(run));
    json_end(json, '}');
}

static int write_json(const char *path, const workload_result *results, const verdict *v, const session *s,
                      infer_error *error)
{
    FILE *file = fopen(path, "w");
    if (!file) return infer_fail(error, "cannot write %s: %s", path, strerror(errno));
    json_writer json = { .file = file };
    json_begin(&json, NULL, '{');
    json_string(&json, "version", quire_version_string());
    json_string(&json, "device", quire_cache_options(s->cache)->device);
    json_begin(&json, "workloads", '[');
    for (size_t i = 0; i < DEMO_WORKLOADS; i++) {
        if (!was_run(&results[i])) continue;
        json_begin(&json, NULL, '{');
        json_string(&json, "title", demo_workload_title(i));
        json_bool(&json, "identical", results[i].identical);
        write_run(&json, "off", &results[i].off);
        write_run(&json, "on", &results[i].on);
        json_end(&json, '}');
    }
    json_end(&json, ']');
    json_real(&json, "a_least_reuse", v->least_reuse);
    json_real(&json, "a_first_token_speedup", v->speedup_factor);
    json_real(&json, "f_arena_share", v->arena_share);
    json_real(&json, "f_returned_share", v->returned_share);
    json_count(&json, "f_computed_though_dearer", v->dearer);
    json_bool(&json, "identical", v->identical);
    json_end(&json, '}');
    fputc('\n', file);
    return fclose(file) ? infer_fail(error, "cannot write %s: %s", path, strerror(errno)) : 0;
}

/* ---- running ----------------------------------------------------------------------------------------------- */

static int run_all(demo *d, const arguments *a, workload_result *results, infer_error *error)
{
    for (size_t i = 0; i < DEMO_WORKLOADS; i++) {
        if (a->only && !strchr(a->only, demo_workload_title(i)[0])) continue;
        if (demo_workload_run(d, i, false, &results[i].off, error) ||
            demo_workload_run(d, i, true, &results[i].on, error))
            return -1;
        results[i].identical = demo_run_identical(&results[i].off, &results[i].on);
    }
    verdict v = judge(results);
    print_table(results);
    print_verdict(&v, results);
    if (a->json && write_json(a->json, results, &v, d->session, error)) return -1;
    if (!(v.identical && v.reuse && v.speedup && v.restored && v.separate && v.small && v.returned && v.cheapest))
        return infer_fail(error, "the demo did not show what it must; see above");
    return 0;
}

int main(int argc, char **argv)
{
    static session s;
    static demo_texts texts;
    workload_result results[DEMO_WORKLOADS];
    infer_error error = { "" };
    arguments a = { .texts = INFER_TEXTS };
    bool terminal = isatty(STDERR_FILENO);
    if (parse_arguments(argc, argv, &a, &error)) {
        fprintf(stderr, "quire-demo: %s\n", error.text);
        return 2;
    }
    /* What is compared is bits, so a GPU has to keep the mode that a CPU keeps anyway; the environment may say otherwise. */
    setenv("QUIRE_DETERMINISTIC", "1", 0);
    memset(results, 0, sizeof results);
    demo d = { .session = &s, .texts = &texts, .progress = show_progress, .user = &terminal };
    session_defaults(&d.options);
    d.options.model_path = a.model;
    d.options.device = a.device;
    int status = demo_texts_read(&texts, a.texts, &error) || session_open(&s, &d.options, &error) ? -1 : 0;
    if (!status && !s.has_chat)
        status = infer_fail(&error, "the model has no chat template that this example knows; the demo needs one");
    if (!status) {
        printf("%s on %s, model %s\n", quire_version_string(), quire_cache_options(s.cache)->device, a.model);
        fflush(stdout);
        status = run_all(&d, &a, results, &error);
    }
    if (status) fprintf(stderr, "quire-demo: %s\n", error.text);
    for (size_t i = 0; i < DEMO_WORKLOADS; i++) {
        demo_run_free(&results[i].off);
        demo_run_free(&results[i].on);
    }
    session_close(&s);
    demo_texts_free(&texts);
    return status ? 1 : 0;
}
