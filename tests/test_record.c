/* Recording: what a cache was asked is replayed to the same hits, and no failure of the recording reaches the
 * cache. */
#include "support/testing.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "read.h"
#include "recorded_run.h"
#include "support/small_cache.h"

enum { SEQUENCES = 6, TEXTS = 10, LONGEST = 60, LETTERS = 3 };

typedef struct text {
    int32_t tokens[LONGEST];
    size_t count;
    size_t prompt; /* of a sequence: how far its tokens go, computed or not */
} text;

typedef struct work {
    quire_cache *cache;
    uint64_t seed;
    quire_seq seqs[SEQUENCES]; /* 0: not open */
    text now[SEQUENCES], kept[TEXTS];
} work;

static uint32_t below(work *w, uint32_t most)
{
    return (uint32_t)(quire__random(&w->seed) % most);
}

static void extend(work *w, text *t, uint32_t count)
{
    for (; count > 0 && t->count < LONGEST; count--)
        t->tokens[t->count++] = (int32_t)below(w, LETTERS);
}

static void start(work *w, uint32_t i)
{
    text prompt = w->kept[below(w, TEXTS)];
    if (prompt.count > 0 && below(w, 3) == 0)
        prompt.count = 1 + below(w, (uint32_t)prompt.count);
    extend(w, &prompt, 1 + below(w, 12));
    w->seqs[i] = small_open(w->cache, below(w, 8) == 0);
    quire_hit hit = {0};
    if (below(w, 10) > 0) /* some never match */
        assert_int_equal(quire_seq_match(w->cache, w->seqs[i], prompt.tokens, prompt.count, &hit), QUIRE_OK);
    w->now[i] = prompt;
    w->now[i].count = hit.tokens;
    w->now[i].prompt = prompt.count;
    if (quire_seq_wait(w->cache, w->seqs[i], 1000000) != QUIRE_OK)
        fail_msg("%s", quire_error_text());
    w->kept[below(w, TEXTS)] = prompt;
}

/* Some of the open sequences get some tokens, in one step that is committed. */
static void step(work *w)
{
    quire_step *step = NULL;
    assert_int_equal(quire_step_begin(w->cache, NULL, &step), QUIRE_OK);
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        if (w->seqs[i] == 0 || below(w, 3) == 0)
            continue;
        text after = w->now[i];
        if (after.count < after.prompt) /* an engine computes the prompt that it has asked for */
            after.count += 1 + below(w, (uint32_t)(after.prompt - after.count));
        else
            extend(w, &after, below(w, 3) ? 1 : 1 + below(w, 9));
        size_t added = after.count - w->now[i].count;
        if (added == 0 || quire_step_add(step, w->seqs[i], after.tokens + w->now[i].count, added) != QUIRE_OK)
            continue;
        w->now[i] = after;
        w->kept[below(w, TEXTS)] = after;
    }
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
}

static void cut_or_fork(work *w, uint32_t i)
{
    uint32_t child = below(w, SEQUENCES);
    if (below(w, 2) && w->now[i].count > 0) {
        w->now[i].count -= 1 + below(w, (uint32_t)(w->now[i].count < 9 ? w->now[i].count : 9));
        w->now[i].prompt = w->now[i].count;
        assert_int_equal(quire_seq_truncate(w->cache, w->seqs[i], w->now[i].count), QUIRE_OK);
    } else if (w->seqs[child] == 0) {
        assert_int_equal(quire_seq_fork(w->cache, w->seqs[i], &w->seqs[child]), QUIRE_OK);
        w->now[child] = w->now[i];
    }
}

static void work_for(work *w, int calls)
{
    for (int n = 0; n < calls; n++) {
        uint32_t i = below(w, SEQUENCES), what = below(w, 100);
        if (w->seqs[i] == 0) {
            start(w, i);
        } else if (what < 65) {
            step(w);
        } else if (what < 80) {
            cut_or_fork(w, i);
        } else if (what < 99) {
            assert_int_equal(quire_seq_close(w->cache, w->seqs[i]), QUIRE_OK);
            w->seqs[i] = 0;
        } else {
            assert_int_equal(quire_cache_clear(w->cache), QUIRE_OK);
        }
    }
}

static void log_line(void *user, quire_log_level level, const char *line)
{
    char *lines = user;
    (void)level;
    size_t length = strlen(lines);
    snprintf(lines + length, 1024 - length, "%s\n", line);
}

static quire_cache *open_cache(const char *path, const char *policy, int tokens, uint32_t device,
                               uint32_t host, char *lines)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;
    small_options(&options, &group, device, host);
    options.policy = policy;
    options.trace = path;
    options.trace_tokens = tokens;
    options.log_level = QUIRE_LOG_WARN;
    options.log = log_line;
    options.log_user = lines;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    return cache;
}

static replay_trace read_back(const char *path)
{
    replay_trace trace;
    replay_error error;
    replay_read_result result;
    replay_read_options options = {.strict = true, .memory = UINT64_C(1) << 28, .longest_line = 1 << 20};
    if (replay_read(&trace, path, &options, &result, &error))
        fail_msg("%s", error.text);
    assert_non_null(trace.recorded);
    return trace;
}

/* Records random work; returns the cache's own figures, and the name of the file. */
static quire_stats record(uint64_t seed, const char *policy, int tokens, uint32_t device, uint32_t host,
                          char *path, char *written)
{
    char lines[1024] = "";
    work w = {.seed = seed};
    snprintf(path, 64, "/tmp/quire-record-XXXXXX");
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    unlink(path);
    w.cache = open_cache(path, policy, tokens, device, host, lines);
    snprintf(written, 80, "%s", quire_cache_options(w.cache)->trace);
    work_for(&w, 1500);
    quire_stats stats = small_stats(w.cache);
    quire_cache_close(w.cache);
    assert_string_equal(lines, "");
    return stats;
}

static void check_rerun(uint64_t seed, const char *policy, int tokens, uint32_t device, uint32_t host)
{
    char path[64], written[80];
    quire_stats stats = record(seed, policy, tokens, device, host, path, written);
    replay_trace trace = read_back(written);
    replay_rerun rerun;
    replay_error error;
    unlink(written);
    if (replay_recorded_rerun(trace.recorded, trace.recorded->policy, trace.recorded->device_blocks,
                              trace.recorded->host_blocks, &rerun, &error))
        fail_msg("%s", error.text);
    print_message(
        "%llu matches: %llu tokens found on the device, %llu on the host, %llu in part; %llu evictions\n",
        (unsigned long long)stats.matches, (unsigned long long)stats.hit_tokens_device,
        (unsigned long long)stats.hit_tokens_host, (unsigned long long)stats.hit_tokens_partial,
        (unsigned long long)stats.evictions_device);
    assert_int_equal(rerun.matches, stats.matches);
    assert_int_equal(rerun.match_tokens, stats.match_tokens);
    assert_int_equal(rerun.differing, 0);
    assert_int_equal(rerun.left_out, 0);
    assert_int_equal(rerun.hit_device, stats.hit_tokens_device);
    assert_int_equal(rerun.hit_host, stats.hit_tokens_host);
    assert_int_equal(rerun.hit_partial, stats.hit_tokens_partial);
    assert_int_equal(rerun.evictions_device, stats.evictions_device);
    assert_int_equal(rerun.evictions_host, stats.evictions_host);
    assert_int_equal(rerun.offloads, stats.offloads);
    assert_int_equal(rerun.restores, stats.restores);
    assert_true(stats.hit_tokens_partial > 0 && stats.evictions_device > 0);
    replay_trace_close(&trace);
}

static void a_recording_is_replayed_to_the_same_hits(void **state)
{
    (void)state;
    uint64_t seed = test_seed("record", 21);
    for (uint64_t i = 0; i < (test_is_small() ? 3 : 20); i++)
        check_rerun(seed + i, "lru", i % 2, 60 + (uint32_t)(i % 5) * 10, i % 3 ? 100 : 0);
}

static char *contents(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);
    assert_non_null(file);
    assert_non_null(text);
    *size = fread(text, 1, (1 << 20) - 1, file);
    fclose(file);
    return text;
}

static void two_recordings_of_the_same_say_nothing_of_tokens_in_common(void **state)
{
    (void)state;
    char path[64], written[2][80];
    size_t sizes[2];
    for (int i = 0; i < 2; i++)
        record(5, "lru", 0, 80, 0, path, written[i]);
    char *first = contents(written[0], &sizes[0]), *second = contents(written[1], &sizes[1]);
    int common = 0, hashes = 0;
    for (char *at = strstr(first, "\n"); at; at = strpbrk(at + 1, " :,")) {
        char hash[17];
        if (strspn(at + 1, "0123456789abcdef") != 16)
            continue;
        snprintf(hash, sizeof hash, "%.16s", at + 1);
        hashes++;
        common += strstr(second, hash) != NULL;
    }
    assert_true(hashes > 100);
    assert_int_equal(common, 0);
    assert_null(strchr(strchr(first, '\n'), '=')); /* no tokens */
    for (int i = 0; i < 2; i++)
        unlink(written[i]);
    free(first);
    free(second);

    record(5, "lru", 1, 80, 0, path, written[0]);
    first = contents(written[0], &sizes[0]);
    assert_non_null(strchr(strchr(first, '\n'), '='));
    unlink(written[0]);
    free(first);
}

static void a_recording_that_cannot_be_written_is_a_warning_and_no_more(void **state)
{
    (void)state;
    static const char *const paths[] = {"/does/not/exist", "/dev/full"};
    for (int i = 0; i < 2; i++) {
        char lines[1024] = "", link[64];
        snprintf(link, sizeof link, "%s", paths[i]);
        if (i ==
            1) { /* the name gets a number when caches came before: so a link, under the name it will have */
            work probe = {.cache = open_cache("/does/not/exist", "lru", 0, 20, 0, lines)};
            unsigned number =
                (unsigned)strtoul(strrchr(quire_cache_options(probe.cache)->trace, '.') + 1, NULL, 10);
            quire_cache_close(probe.cache);
            lines[0] = '\0';
            snprintf(link, sizeof link, "/tmp/quire-full-%d.%u", (int)getpid(), number + 1);
            unlink(link);
            if (access("/dev/full", W_OK) != 0 || symlink("/dev/full", link) != 0)
                SKIP_BECAUSE("there is no /dev/full");
            *strrchr(link, '.') = '\0';
        }
        work w = {.seed = 9, .cache = open_cache(link, "lru", 1, 60, 0, lines)};
        work_for(&w, 6000);
        assert_int_equal(quire_cache_check(w.cache), QUIRE_OK);
        assert_true(small_stats(w.cache).matches > 0);
        char written[80];
        snprintf(written, sizeof written, "%s", quire_cache_options(w.cache)->trace);
        quire_cache_close(w.cache);
        assert_non_null(
            strstr(lines, i == 0 ? "nothing is recorded: cannot write" : "ends here: No space left"));
        assert_ptr_equal(strchr(lines, '\n'), strrchr(lines, '\n')); /* once */
        if (i == 1)
            unlink(written);
    }
}

static void damaged_recordings_are_named_by_their_line(void **state)
{
    (void)state;
    static const char header[] =
        "# quire-trace v1 block=4 device=20 host=0 bytes=256 sequences=2 longest=80 domains=1 "
        "watermark=0 offload=1 policy=lru tokens=no\n0 o 0 0\n0 m 0 9 0 0 0 - -\n"
        "1 s 0:9:0123456789abcdef,0123456789abcdee\n";
    static const char *const bad[] = {
        "2 o 0 0",
        "2 o 2 0",
        "2 o 1",
        "2 x 1",
        "2 m 1 9 0 0 0 - -",
        "2 m 0 9 0 0 0 - -",
        "2 q",
        "x",
        "2",
        "2 s 0:0",
        "2 s 0:3",
        "2 s 0:3:0123",
        "2 s 0:1:0123456789abcdef",
        "2 t 0 10",
        "2 f 0 0",
        "2 x 0 0",
        "2 s 1:1",
        "-1 x 0",
        "2 s 0:99999999999",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char path[] = "/tmp/quire-record-XXXXXX", text[1024];
        replay_trace trace;
        replay_error error;
        replay_read_result result;
        replay_read_options options = {.strict = true, .memory = 1 << 24, .longest_line = 1 << 16};
        int file = mkstemp(path), length = snprintf(text, sizeof text, "%s%s\n", header, bad[i]);
        assert_int_equal(write(file, text, (size_t)length), length);
        close(file);
        if (replay_read(&trace, path, &options, &result, &error) == 0)
            fail_msg("taken: %s", bad[i]);
        assert_non_null(strstr(error.text, ":5: "));
        options.strict = false;
        assert_int_equal(replay_read(&trace, path, &options, &result, &error), 0);
        assert_int_equal(result.skipped, 1);
        assert_int_equal(trace.request_count, 1);
        replay_trace_close(&trace);
        unlink(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recording_is_replayed_to_the_same_hits),
        cmocka_unit_test(two_recordings_of_the_same_say_nothing_of_tokens_in_common),
        cmocka_unit_test(a_recording_that_cannot_be_written_is_a_warning_and_no_more),
        cmocka_unit_test(damaged_recordings_are_named_by_their_line),
    };
    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
