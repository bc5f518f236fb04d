/* quire-infer: serves a GGUF model over a Quire cache, from the command line, a chat, or a file of requests. */
#include "beams.h"
#include "handoff.h"
#include "json_write.h"
#include "perplexity.h"
#include "requests.h"
#include "session.h"
#include "speculate.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct arguments {
    session_options session;
    engine_request request; /* defaults of every request */
    const char *prompt, *requests, *perplexity;
    bool chat, json;
    uint32_t draft, beams; /* 0: the engine answers */
    const char *prefill_to, *decode_from; /* addresses */
    uint64_t link_seconds;
    handoff handoff; /* of these */
} arguments;

enum { MOST_DRAFT = 64, LINK_SECONDS = 30 };

static const char help[] =
    "Usage: quire-infer --model FILE.gguf (--prompt TEXT | --chat | --requests FILE.jsonl |\n"
    "                    --perplexity FILE) [options]\n"
    "\n"
    "What to run\n"
    "  --model FILE        the model, a GGUF file, Llama family or Gemma 3 (or the variable QUIRE_MODEL)\n"
    "  --prompt TEXT       continue the text; with --chat: answer this one message\n"
    "  --chat              talk: a line is a message, /new begins again, /exit or end of file ends\n"
    "  --requests FILE     serve the requests of a file, one JSON object a line (- is standard input):\n"
    "                      {\"prompt\": \"...\"} or {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}]}, and\n"
    "                      max_tokens, temperature, top_p, seed, domain, n, prune_every\n"
    "  --perplexity FILE   how well the model predicts a text with the cache's QUIRE_DTYPE, in windows of --context\n"
    "                      tokens (default 1024), each token after the ones before it in its window\n"
    "\n"
    "How to answer (for --requests: where a line says nothing else)\n"
    "  --max-tokens N      generate at most N tokens (default 256)\n"
    "  --temperature T     0: always the likeliest token (default); else sample\n"
    "  --top-p P           sample among the likeliest tokens that sum to P (default 1)\n"
    "  --seed N            of the sampling (default 0)\n"
    "  --n N               answers a prompt, sharing its KV (default 1)\n"
    "  --speculate N       with --prompt: drafts of up to N tokens by prompt lookup, checked by the model in one step;\n"
    "                      the answer is that of temperature 0\n"
    "  --beams N           with --prompt: the N likeliest answers that a beam search finds\n"
    "\n"
    "Two processes (docs/peers.md): both are given the same prompt or requests; ADDRESS is unix:PATH or HOST:PORT\n"
    "  --decode-from ADDRESS  wait there for the prompts' KV, then answer; what does not come is computed here\n"
    "  --prefill-to ADDRESS   compute the prompts, send their KV there, answer nothing\n"
    "  --link-timeout N    seconds for the other side to come, and for each transfer (default 30)\n"
    "\n"
    "Where and how\n"
    "  --device NAME       host, cuda:N or auto (default: QUIRE_DEVICE, auto)\n"
    "  --context N         longest sequence in tokens (default: the model's, or what fits the cache)\n"
    "  --graph             decode steps as CUDA graphs: captured once, replayed in later steps\n"
    "  --no-cache          take nothing from the cache: compute every prompt whole\n"
    "  --json              write JSON, one line a request, then one of statistics\n"
    "  --help, --version\n"
    "\n"
    "The cache itself is set by QUIRE_* variables (docs/variables.md), such as QUIRE_DEVICE_BYTES=1G.\n"
    "Exit status: 0 all answered, 1 something failed, 2 the command line is wrong.\n";

/* ---- the command line -------------------------------------------------------------------------------------- */

static int parse_whole(const char *option, const char *text, uint64_t least, uint64_t most, uint64_t *out,
                       infer_error *error)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < least || value > most)
        return infer_fail(error, "--%s is \"%s\"; it must be a whole number from %" PRIu64 " to %" PRIu64, option,
                          text, least, most);
    *out = value;
    return 0;
}

static int parse_real(const char *option, const char *text, double most, float *out, infer_error *error)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0 && value <= most))
        return infer_fail(error, "--%s is \"%s\"; it must be a number from 0 to %g", option, text, most);
    *out = (float)value;
    return 0;
}

static int take_option(arguments *a, int option, const char *name, const char *value, infer_error *error)
{
    uint64_t whole = 0;
    int status = 0;
    switch (option) {
    case 'm': a->session.model_path = value; break;
    case 'p': a->prompt = value; break;
    case 'c': a->chat = true; break;
    case 'r': a->requests = value; break;
    case 'x': a->perplexity = value; break;
    case 'd': a->session.device = value; break;
    case 'G': a->session.engine.graph = true; break;
    case 'N': a->session.engine.reuse = false; break;
    case 'j': a->json = true; break;
    case 'T': status = parse_real(name, value, 100, &a->request.sampling.temperature, error); break;
    case 'P': status = parse_real(name, value, 1, &a->request.sampling.top_p, error); break;
    case 's': status = parse_whole(name, value, 0, UINT64_MAX, &a->request.sampling.seed, error); break;
    case 't':
        status = parse_whole(name, value, 1, INT32_MAX, &whole, error);
        a->request.most_tokens = (uint32_t)whole;
        break;
    case 'n':
        status = parse_whole(name, value, 1, a->session.engine.most_running, &whole, error);
        a->request.branches = (uint32_t)whole;
        break;
    case 'C':
        status = parse_whole(name, value, 1, INT32_MAX, &whole, error);
        a->session.context = (uint32_t)whole;
        break;
    case 'S':
        status = parse_whole(name, value, 1, MOST_DRAFT, &whole, error);
        a->draft = (uint32_t)whole;
        break;
    case 'b':
        status = parse_whole(name, value, 1, BEAMS_MOST, &whole, error);
        a->beams = (uint32_t)whole;
        break;
    case 'F': a->prefill_to = value; break;
    case 'f': a->decode_from = value; break;
    case 'l': status = parse_whole(name, value, 1, 86400, &a->link_seconds, error); break;
    default: status = infer_fail(error, "see quire-infer --help"); break; /* getopt has said what is wrong */
    }
    return status;
}

static int parse_arguments(int argc, char **argv, arguments *a, infer_error *error)
{
    static const struct option options[] = {
        { "model", required_argument, NULL, 'm' },       { "prompt", required_argument, NULL, 'p' },
        { "chat", no_argument, NULL, 'c' },              { "requests", required_argument, NULL, 'r' },
        { "device", required_argument, NULL, 'd' },      { "no-cache", no_argument, NULL, 'N' },
        { "graph", no_argument, NULL, 'G' },
        { "json", no_argument, NULL, 'j' },              { "temperature", required_argument, NULL, 'T' },
        { "top-p", required_argument, NULL, 'P' },       { "seed", required_argument, NULL, 's' },
        { "max-tokens", required_argument, NULL, 't' },  { "n", required_argument, NULL, 'n' },
        { "context", required_argument, NULL, 'C' },     { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'v' },           { "perplexity", required_argument, NULL, 'x' },
        { "speculate", required_argument, NULL, 'S' },   { "beams", required_argument, NULL, 'b' },
        { "prefill-to", required_argument, NULL, 'F' },  { "decode-from", required_argument, NULL, 'f' },
        { "link-timeout", required_argument, NULL, 'l' },
        { NULL, 0, NULL, 0 },
    };
    int option, index;
    while ((option = getopt_long(argc, argv, "h", options, &index)) != -1) {
        if (option == 'h' || option == 'v') {
            if (option == 'h') fputs(help, stdout);
            else puts(quire_version_string());
            exit(0);
        }
        if (take_option(a, option, option == '?' ? "" : options[index].name, optarg, error)) return -1;
    }
    if (optind < argc) return infer_fail(error, "\"%s\" belongs to no option; see quire-infer --help", argv[optind]);
    if (!a->session.model_path) a->session.model_path = getenv("QUIRE_MODEL");
    if (!a->session.model_path || !*a->session.model_path)
        return infer_fail(error, "no model: give --model FILE.gguf or set QUIRE_MODEL");
    int ways = (a->prompt || a->chat) + (a->requests != NULL) + (a->perplexity != NULL);
    if (ways != 1)
        return infer_fail(error, "one of --prompt, --chat, --requests and --perplexity is needed; see quire-infer --help");
    if ((a->draft || a->beams) && (!a->prompt || (a->draft && a->beams) || a->request.branches > 1 ||
                                   a->request.sampling.temperature > 0.0f))
        return infer_fail(error, "--speculate and --beams go with --prompt, one of them, and not with --n or "
                          "--temperature");
    if ((a->prefill_to || a->decode_from) &&
        ((a->prefill_to && a->decode_from) || a->draft || a->beams || a->perplexity || (a->chat && !a->prompt)))
        return infer_fail(error, "--prefill-to and --decode-from go with --prompt or --requests, one of them, and not with "
                          "--speculate or --beams");
    if (a->requests && !requests_supported())
        return infer_fail(error, "--requests needs cJSON (Debian: libcjson-dev), which this build lacks");
    return 0;
}

/* ---- results ----------------------------------------------------------------------------------------------- */

static void print_token(void *user, const engine_token *token)
{
    session *s = user;
    if (token->branch != 0 || tokenizer_is_end(s->tokenizer, token->id)) return;
    gguf_string text = tokenizer_decode(s->tokenizer, token->id);
    fwrite(text.data, 1, text.length, stdout);
    fflush(stdout);
}

/* The generated text; the caller frees it. NULL: no memory. */
static char *output_text(const session *s, const engine_output *output, size_t *length)
{
    *length = 0;
    for (size_t i = 0; i < output->count; i++) *length += tokenizer_decode(s->tokenizer, output->tokens[i]).length;
    char *text = malloc(*length + 1), *end = text;
    for (size_t i = 0; text && i < output->count; i++) {
        gguf_string piece = tokenizer_decode(s->tokenizer, output->tokens[i]);
        memcpy(end, piece.data, piece.length);
        end += piece.length;
    }
    return text;
}

static void write_json_result(const session *s, uint32_t number, unsigned long line)
{
    static const char *const finishes[] = { "unfinished", "stop", "length", "failed" };
    engine_result r = engine_result_of(s->engine, number);
    json_writer json = { .file = stdout };
    json_begin(&json, NULL, '{');
    if (line) json_count(&json, "line", line);
    if (r.error) json_string(&json, "error", r.error);
    json_begin(&json, "outputs", '[');
    for (uint32_t i = 0; i < r.outputs; i++) {
        engine_output output = engine_output_of(s->engine, number, i);
        size_t length;
        char *text = output_text(s, &output, &length);
        json_begin(&json, NULL, '{');
        json_text(&json, "text", text ? text : "", text ? length : 0);
        json_count(&json, "tokens", output.count);
        json_real(&json, "log_probability", output.log_probability);
        json_string(&json, "finish", finishes[output.finish]);
        json_end(&json, '}');
        free(text);
    }
    json_end(&json, ']');
    json_count(&json, "prompt_tokens", r.prompt_tokens);
    json_count(&json, "reused_device", r.device);
    json_count(&json, "restored_host", r.host);
    json_count(&json, "reused_partial", r.partial);
    json_count(&json, "computed", r.computed);
    json_count(&json, "preemptions", r.preemptions);
    json_real(&json, "waited_s", r.waited_s);
    json_real(&json, "first_token_s", r.first_token_s);
    json_real(&json, "total_s", r.total_s);
    json_end(&json, '}');
    putchar('\n');
}

static void write_json_statistics(session *s)
{
    quire_stats stats = { .size = sizeof stats };
    json_writer json = { .file = stdout };
    if (quire_cache_stats(s->cache, &stats)) return;
    json_begin(&json, NULL, '{');
    json_string(&json, "version", quire_version_string());
    json_string(&json, "device", quire_cache_options(s->cache)->device);
    json_string(&json, "dtype", quire_dtype_name(quire_cache_options(s->cache)->groups[0].dtype));
    json_real(&json, "token_bytes", session_token_bytes(s, 0));
    json_count(&json, "computed_tokens", stats.computed_tokens);
    json_count(&json, "hit_tokens_device", stats.hit_tokens_device);
    json_count(&json, "hit_tokens_host", stats.hit_tokens_host);
    json_count(&json, "copies_on_write", stats.copies_on_write);
    json_count(&json, "evictions_device", stats.evictions_device);
    json_count(&json, "restores", stats.restores);
    json_count(&json, "steps", stats.steps);
    json_end(&json, '}');
    putchar('\n');
}

static void write_text_result(const session *s, uint32_t number, unsigned long line)
{
    engine_result r = engine_result_of(s->engine, number);
    for (uint32_t i = 0; i < r.outputs; i++) {
        engine_output output = engine_output_of(s->engine, number, i);
        size_t length;
        char *text = output_text(s, &output, &length);
        if (line) printf("[line %lu] ", line);
        if (r.outputs > 1) printf("[%" PRIu32 "] ", i + 1);
        if (text) fwrite(text, 1, length, stdout);
        putchar('\n');
        free(text);
    }
}

/* ---- searches ---------------------------------------------------------------------------------------------- */

static void print_id(void *user, int32_t id)
{
    session *s = user;
    gguf_string text = tokenizer_decode(s->tokenizer, id);
    fwrite(text.data, 1, text.length, stdout);
    fflush(stdout);
}

static void write_json_answer(const session *s, json_writer *json, const char *key, const int32_t *tokens, size_t count,
                              bool stopped)
{
    size_t length;
    engine_output output = { .tokens = tokens, .count = count };
    char *text = output_text(s, &output, &length);
    json_begin(json, key, '{');
    json_text(json, "text", text ? text : "", text ? length : 0);
    json_count(json, "tokens", count);
    json_string(json, "finish", stopped ? "stop" : "length");
    free(text);
}

static int run_speculation(session *s, const arguments *a, const token_list *tokens, infer_error *error)
{
    int32_t stop[SESSION_MOST_STOP_IDS];
    lanes l;
    speculate_result r;
    speculate_request request = { .tokens = tokens->ids, .count = tokens->count, .most_tokens = a->request.most_tokens,
                                  .draft = a->draft, .stop_ids = stop, .stop_count = session_stop_ids(s, stop),
                                  .reuse = a->session.engine.reuse, .user = s };
    if (!a->json) request.on_token = print_id;
    if (lanes_open(&l, s->cache, s->model, a->draft + 1, error)) return -1;
    int status = speculate_run(&l, &request, &r, error);
    lanes_close(&l);
    if (status) return -1;
    if (a->json) {
        json_writer json = { .file = stdout };
        write_json_answer(s, &json, NULL, r.tokens, r.count, r.stopped);
        json_count(&json, "steps", r.steps);
        json_count(&json, "drafted", r.drafted);
        json_count(&json, "accepted", r.accepted);
        json_end(&json, '}');
        putchar('\n');
        write_json_statistics(s);
    } else {
        printf("\n");
        fprintf(stderr, "%zu tokens in %llu steps; of %llu drafted tokens %llu were accepted\n", r.count,
                (unsigned long long)r.steps, (unsigned long long)r.drafted, (unsigned long long)r.accepted);
    }
    free(r.tokens);
    return 0;
}

static int run_beams(session *s, const arguments *a, const token_list *tokens, infer_error *error)
{
    int32_t stop[SESSION_MOST_STOP_IDS];
    lanes l;
    beams_result r;
    beams_request request = { .tokens = tokens->ids, .count = tokens->count, .most_tokens = a->request.most_tokens,
                              .beams = a->beams, .stop_ids = stop, .stop_count = session_stop_ids(s, stop),
                              .reuse = a->session.engine.reuse };
    if (lanes_open(&l, s->cache, s->model, a->beams, error)) return -1;
    int status = beams_run(&l, &request, &r, error);
    lanes_close(&l);
    if (status) return -1;
    json_writer json = { .file = stdout };
    if (a->json) {
        json_begin(&json, NULL, '{');
        json_begin(&json, "outputs", '[');
    }
    for (uint32_t i = 0; i < r.count; i++) {
        const beam *b = &r.beams[i];
        if (a->json) {
            write_json_answer(s, &json, NULL, b->tokens, b->count, b->stopped);
            json_real(&json, "log_probability", b->log_probability);
            json_end(&json, '}');
            continue;
        }
        printf("[%" PRIu32 ", %.3f] ", i + 1, b->log_probability);
        for (size_t j = 0; j < b->count; j++) print_id(s, b->tokens[j]);
        putchar('\n');
    }
    if (a->json) {
        json_end(&json, ']');
        json_count(&json, "steps", r.steps);
        json_count(&json, "forks", r.forks);
        json_end(&json, '}');
        putchar('\n');
        write_json_statistics(s);
    }
    beams_free(&r);
    return 0;
}

/* ---- the ways to run --------------------------------------------------------------------------------------- */

/* The sequences that the other process computes. Without them everything is computed here. */
static void take_prompts(arguments *a, uint32_t count)
{
    infer_error error;
    uint32_t taken = 0;
    while (taken < count && a->handoff.peer && !handoff_receive(&a->handoff, &error)) taken++;
    if (a->handoff.peer && taken < count)
        fprintf(stderr, "quire-infer: %s; of %" PRIu32 " prompts %" PRIu32 " came, the rest is computed here\n", error.text,
                count, taken);
}

static int open_handoff(session *s, arguments *a, infer_error *error)
{
    const char *address = a->prefill_to ? a->prefill_to : a->decode_from;
    if (!address) return 0;
    int status = handoff_meet(&a->handoff, s->cache, s->model, address, a->decode_from != NULL, a->link_seconds * 1000000,
                              error);
    if (!status || a->prefill_to) return status;
    fprintf(stderr, "quire-infer: %s; everything is computed here\n", error->text);
    return 0;
}

static void report_sent(const arguments *a)
{
    if (a->prefill_to)
        fprintf(stderr, "%zu prompts of %zu tokens; the other side had %zu of them, %zu bytes were sent\n",
                a->handoff.sequences, a->handoff.tokens, a->handoff.cached, a->handoff.bytes);
}

static int run_one(session *s, arguments *a, token_list *tokens, infer_error *error)
{
    engine_request request = a->request;
    uint32_t number;
    request.tokens = tokens->ids;
    request.count = tokens->count;
    if (a->prefill_to) return handoff_send(&a->handoff, &request, error);
    if (a->decode_from) take_prompts(a, 1);
    if (engine_submit(s->engine, &request, &number, error) || engine_run(s->engine, error)) return -1;
    engine_result r = engine_result_of(s->engine, number);
    if (r.error) return infer_fail(error, "%s", r.error);
    if (a->json) {
        write_json_result(s, number, 0);
        write_json_statistics(s);
    } else if (request.branches > 1) write_text_result(s, number, 0);
    else putchar('\n');
    return 0;
}

static int run_prompt(session *s, arguments *a, infer_error *error)
{
    token_list tokens = { 0 };
    chat_message message = { .role = "user", .content = a->prompt };
    int status = a->chat ? prompt_from_messages(s->tokenizer, &s->chat, &message, 1, &tokens, error)
                         : prompt_from_text(s->tokenizer, a->prompt, &tokens, error);
    if (!status)
        status = a->draft   ? run_speculation(s, a, &tokens, error)
                 : a->beams ? run_beams(s, a, &tokens, error)
                            : run_one(s, a, &tokens, error);
    token_list_free(&tokens);
    return status;
}

static int chat_turn(session *s, arguments *a, conversation *c, const char *line, infer_error *error)
{
    if (conversation_say(c, "user", line, error) || run_one(s, a, &c->tokens, error)) return -1;
    engine_output output = engine_output_of(s->engine, 0, 0);
    int status = conversation_answer(c, output.tokens, output.count, error);
    engine_forget(s->engine);
    return status;
}

static int run_chat(session *s, arguments *a, infer_error *error)
{
    conversation c;
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    conversation_open(&c, s->tokenizer, &s->chat);
    for (;;) {
        if (!a->json) fputs("> ", stdout);
        fflush(stdout);
        if ((length = getline(&line, &room, stdin)) < 0) break;
        while (length && (line[length - 1] == '\n' || line[length - 1] == '\r')) line[--length] = 0;
        if (!strcmp(line, "/exit")) break;
        bool again = !strcmp(line, "/new");
        if (!again && *line && chat_turn(s, a, &c, line, error)) {
            fprintf(stderr, "quire-infer: %s (the conversation begins again)\n", error->text);
            again = true;
        }
        if (!again) continue;
        engine_forget(s->engine);
        conversation_close(&c);
        conversation_open(&c, s->tokenizer, &s->chat);
    }
    free(line);
    conversation_close(&c);
    return 0;
}

/* Submits every good line; a bad one is reported with its number and the others go on. lines[number] is where request
 * `number` stands. */
static int submit_lines(session *s, arguments *a, FILE *file, unsigned long **lines, uint32_t *count,
                        unsigned long *bad, infer_error *failure)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    for (unsigned long at = 1; (length = getline(&line, &room, file)) >= 0; at++) {
        infer_error error;
        token_list tokens = { 0 };
        engine_request request;
        uint32_t number;
        if (strspn(line, " \t\r\n") == (size_t)length) continue;
        if (requests_parse(line, (size_t)length, s->tokenizer, s->has_chat ? &s->chat : NULL, &a->request, &tokens,
                           &request, &error) ||
            (a->prefill_to ? handoff_send(&a->handoff, &request, &error)
                           : engine_submit(s->engine, &request, &number, &error))) {
            fprintf(stderr, "quire-infer: %s:%lu: %s\n", a->requests, at, error.text);
            ++*bad;
        } else if (!a->prefill_to) {
            unsigned long *more = realloc(*lines, (number + 1) * sizeof *more);
            if (!more) return infer_fail(failure, "no memory for the requests of %s", a->requests);
            *lines = more;
            (*lines)[number] = at;
            *count = number + 1;
        }
        token_list_free(&tokens);
    }
    free(line);
    return 0;
}

static int run_requests(session *s, arguments *a, infer_error *error)
{
    unsigned long *lines = NULL, bad = 0;
    uint32_t count = 0;
    bool from_stdin = !strcmp(a->requests, "-");
    FILE *file = from_stdin ? stdin : fopen(a->requests, "r");
    if (!file) return infer_fail(error, "cannot read %s: %s", a->requests, strerror(errno));
    int status = submit_lines(s, a, file, &lines, &count, &bad, error);
    if (!from_stdin) fclose(file);
    if (!status && a->decode_from) take_prompts(a, count);
    if (!status) status = engine_run(s->engine, error);
    for (uint32_t i = 0; !status && i < count; i++) {
        engine_result r = engine_result_of(s->engine, i);
        if (r.error) {
            fprintf(stderr, "quire-infer: %s:%lu: %s\n", a->requests, lines[i], r.error);
            bad++;
        }
        if (a->json) write_json_result(s, i, lines[i]);
        else if (!r.error) write_text_result(s, i, lines[i]);
    }
    if (a->json && !status && !a->prefill_to) write_json_statistics(s);
    free(lines);
    if (!status && bad) return infer_fail(error, "%lu of the requests in %s failed", bad, a->requests);
    return status;
}

static int run_perplexity(session *s, const arguments *a, infer_error *error)
{
    perplexity_result r;
    if (perplexity_of_file(s, a->perplexity, a->session.context, &r, error)) return -1;
    const char *dtype = quire_dtype_name(quire_cache_options(s->cache)->groups[0].dtype);
    double token_bytes = session_token_bytes(s, 0);
    if (a->json) {
        json_writer json = { .file = stdout };
        json_begin(&json, NULL, '{');
        json_string(&json, "dtype", dtype);
        json_real(&json, "token_bytes", token_bytes);
        json_count(&json, "tokens", r.tokens);
        json_count(&json, "scored", r.scored);
        json_count(&json, "window", r.window);
        json_real(&json, "perplexity", r.perplexity);
        json_end(&json, '}');
        putchar('\n');
    } else {
        printf("perplexity %.4f over %zu of %zu tokens, windows of %" PRIu32 "; K and V in %s, %.0f bytes a token\n",
               r.perplexity, r.scored, r.tokens, r.window, dtype, token_bytes);
    }
    return 0;
}

int main(int argc, char **argv)
{
    infer_error error = { "" };
    static session s;
    arguments a = { .link_seconds = LINK_SECONDS,
                    .request = { .most_tokens = 256, .branches = 1, .sampling = { .top_p = 1.0f } } };
    session_defaults(&a.session);
    if (parse_arguments(argc, argv, &a, &error)) {
        fprintf(stderr, "quire-infer: %s\n", error.text);
        return 2;
    }
    if (!a.json && !a.requests && a.request.branches == 1) {
        a.session.engine.on_token = print_token;
        a.session.engine.user = &s;
    }
    int status = session_open(&s, &a.session, &error);
    if (!status && a.chat && !s.has_chat)
        status = infer_fail(&error, "the model has no chat template that this example knows; use --prompt alone");
    if (!status) status = open_handoff(&s, &a, &error);
    if (!status)
        status = a.requests     ? run_requests(&s, &a, &error)
                 : a.perplexity ? run_perplexity(&s, &a, &error)
                 : a.prompt     ? run_prompt(&s, &a, &error)
                            : run_chat(&s, &a, &error);
    if (status) fprintf(stderr, "quire-infer: %s\n", error.text);
    else report_sent(&a);
    handoff_close(&a.handoff);
    session_close(&s);
    return status ? 1 : 0;
}
