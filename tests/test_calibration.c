/* test_calibration.c: what was measured is kept in a file, whatever state the file is in, and decides what `auto` means. */
#include "support/testing.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/calibration.h"
#include "cache/cache.h"
#include "move/calibrate.h"
#include "support/small_cache.h"

static char folder[32], file[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/quire-calibration-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(file, sizeof file, "%s/calibration.txt", folder);
    return 0;
}

static int remove_folder(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "chmod -R u+w %s; rm -rf %s", folder, folder);
    return system(command) == 0 ? 0 : -1;
}

static void write_file(const char *text)
{
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static bool there(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0;
}

static const quire__calibration sample = {2048, 1024, 10, 20, 30};

static bool load(uint64_t block_bytes, quire__calibration *entry)
{
    *entry = (quire__calibration){.block_bytes = block_bytes, .unit_elements = 1024};
    return quire__calibration_load(file, "a device", entry);
}

/* ---- the file ------------------------------------------------------------------------------------------------ */

static bool has_sample_times(const quire__calibration *entry)
{
    return entry->copy_ns == sample.copy_ns && entry->gather_ns == sample.gather_ns && entry->pack_ns == sample.pack_ns;
}

static void what_is_stored_is_loaded(void **state)
{
    quire__calibration entry, other = sample;

    (void)state;
    assert_false(load(2048, &entry)); /* no file */
    quire__calibration_store(file, "a device", &sample);
    assert_true(load(2048, &entry));
    assert_true(has_sample_times(&entry));
    assert_false(load(4096, &entry));
    other.block_bytes = 4096;
    other.copy_ns = 77;
    quire__calibration_store(file, "a device", &other);
    other.copy_ns = 78;
    quire__calibration_store(file, "a device", &other); /* replaces */
    assert_true(load(2048, &entry) && entry.copy_ns == 10);
    assert_true(load(4096, &entry) && entry.copy_ns == 78);
    entry.unit_elements = 0; /* the same block, not packed: another entry */
    assert_false(quire__calibration_load(file, "a device", &entry));
    for (uint64_t i = 1; i <= 3 * QUIRE__CALIBRATION_LINES; i++) { /* the newest stay */
        other.block_bytes = 4096 + i;
        quire__calibration_store(file, "a device", &other);
    }
    assert_true(load(4096 + 3 * QUIRE__CALIBRATION_LINES, &entry) && load(4097 + 2 * QUIRE__CALIBRATION_LINES, &entry));
    assert_false(load(4096 + 2 * QUIRE__CALIBRATION_LINES, &entry));
}

static void a_file_of_another_device_or_version_counts_as_empty(void **state)
{
    quire__calibration entry = sample;

    (void)state;
    quire__calibration_store(file, "a device", &sample);
    assert_false(quire__calibration_load(file, "a device, other driver", &entry));
    quire__calibration_store(file, "a device, other driver", &sample); /* and is replaced */
    assert_false(load(2048, &entry));
    write_file("quire calibration 2\ndevice a device\nblock 2048 unit 1024 copy 10 gather 20 pack 30\n");
    assert_false(load(2048, &entry));
    quire__calibration_store(file, "a device", &sample);
    assert_true(load(2048, &entry));
}

static void damaged_lines_are_passed_over(void **state)
{
    static const char good[] = "block 2048 unit 1024 copy 10 gather 20 pack 30\n";
    static const char *const bad[] = {
        "block 2048 unit 1024 copy 10 gather 20 pack\n", "block 2048 unit 1024 copy 10 gather 20 pack 30 \n",
        "block 2048 unit 1024 copy 10 gather 20 pack 30x\n", "block 2048 unit 1024 copy -10 gather 20 pack 30\n",
        "block 0 unit 1024 copy 10 gather 20 pack 30\n", "block 2048 unit 1024 copy 0 gather 20 pack 30\n", "\n", "\x01\xff\n",
        "block 2048 unit 1024 copy 10 gather 20 pack 30" /* cut off */,
    };
    quire__calibration entry;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[1024];
        snprintf(text, sizeof text, "quire calibration 1\ndevice a device\n%s", bad[i]);
        write_file(text);
        assert_false(load(2048, &entry));
        snprintf(text, sizeof text, "quire calibration 1\ndevice a device\n%s%s", good, bad[i]);
        write_file(text);
        assert_true(load(2048, &entry));
    }
    uint64_t random = test_seed("noise in a file", 3);
    for (int round = 0; round < 300; round++) { /* any byte may be any other */
        char text[256];
        size_t length = (size_t)snprintf(text, sizeof text, "quire calibration 1\ndevice a device\n%s%s", good, good);
        for (int i = 0; i < 3; i++, random = random * 6364136223846793005u + 1442695040888963407u)
            text[random >> 33 & 63] = (char)(random >> 40);
        FILE *out = fopen(file, "w");
        assert_non_null(out);
        assert_int_equal(fwrite(text, 1, length, out), length);
        assert_int_equal(fclose(out), 0);
        (void)load(2048, &entry); /* whatever it says: the sanitizers watch */
    }
}

static void what_cannot_be_written_is_not(void **state)
{
    quire__calibration entry;
    char nowhere[160];

    (void)state;
    snprintf(nowhere, sizeof nowhere, "%s/calibration.txt/below/a/file", folder);
    write_file("no folder\n");
    quire__calibration_store(nowhere, "a device", &sample);
    assert_false(quire__calibration_load(nowhere, "a device", &entry));
    quire__calibration_store(folder, "a device", &sample); /* a folder where the file should be */
    assert_false(quire__calibration_load(folder, "a device", &entry));
    snprintf(nowhere, sizeof nowhere, "ls %s | grep -v '^calibration.txt$' | grep .", folder);
    assert_int_not_equal(system(nowhere), 0); /* no scratch is left */
}

static void *write_often(void *arg)
{
    quire__calibration entry = sample;
    entry.block_bytes += *(int *)arg;
    for (int i = 0; i < 40; i++)
        quire__calibration_store(file, "a device", &entry);
    return NULL;
}

static void writers_at_the_same_time_leave_a_whole_file(void **state)
{
    enum { THREADS = 3, PROCESSES = 2 };
    pthread_t threads[THREADS];
    pid_t children[PROCESSES];
    int numbers[THREADS + PROCESSES] = {0, 1, 2, 3, 4};
    quire__calibration entry;
    char line[256];

    (void)state;
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            write_often(&numbers[THREADS + i]);
            _exit(0);
        }
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_often, &numbers[i]), 0);
    for (int i = 0; i < 200; i++) /* a reader sees a whole file or none */
        if (load(2048, &entry))
            assert_true(has_sample_times(&entry));
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < PROCESSES; i++)
        assert_int_equal(waitpid(children[i], NULL, 0), children[i]);
    FILE *in = fopen(file, "r");
    assert_non_null(in);
    assert_true(fgets(line, sizeof line, in) != NULL && strcmp(line, "quire calibration 1\n") == 0);
    assert_true(fgets(line, sizeof line, in) != NULL && strcmp(line, "device a device\n") == 0);
    int lines = 0;
    for (; fgets(line, sizeof line, in) != NULL; lines++)
        assert_true(strstr(line, " unit 1024 copy 10 gather 20 pack 30\n") != NULL);
    assert_int_equal(fclose(in), 0);
    assert_true(lines >= 1 && lines <= THREADS + PROCESSES);
}

static void the_file_is_in_the_users_cache_folder(void **state)
{
    char path[256], cache[96], *before = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    quire__calibration entry = sample;

    (void)state;
    before = before != NULL ? strdup(before) : NULL;
    home = home != NULL ? strdup(home) : NULL;
    snprintf(cache, sizeof cache, "%s/cache", folder);
    assert_int_equal(setenv("XDG_CACHE_HOME", cache, 1), 0);
    assert_true(quire__calibration_path(NULL, "NVIDIA H100/x, driver 1", path, sizeof path));
    assert_non_null(strstr(path, "/cache/quire/calibration-NVIDIA_H100_x__driver_1.txt"));
    quire__calibration_store(path, "NVIDIA H100/x, driver 1", &sample); /* makes both folders */
    assert_true(quire__calibration_load(path, "NVIDIA H100/x, driver 1", &entry));
    assert_false(quire__calibration_path(NULL, "d", path, 20));
    assert_false(quire__calibration_path("off", "d", path, sizeof path));
    assert_true(quire__calibration_path("/some/file", "d", path, sizeof path) && strcmp(path, "/some/file") == 0);
    assert_int_equal(setenv("XDG_CACHE_HOME", "relative", 1), 0);
    assert_int_equal(setenv("HOME", folder, 1), 0);
    assert_true(quire__calibration_path("", "d", path, sizeof path));
    assert_non_null(strstr(path, "/.cache/quire/calibration-d.txt"));
    assert_int_equal(unsetenv("HOME"), 0);
    assert_false(quire__calibration_path("", "d", path, sizeof path));
    (void)(before != NULL ? setenv("XDG_CACHE_HOME", before, 1) : unsetenv("XDG_CACHE_HOME"));
    (void)(home != NULL ? setenv("HOME", home, 1) : 0);
    free(before);
    free(home);
}

/* ---- the choice ---------------------------------------------------------------------------------------------- */

static void auto_options(quire_options *options, quire_group *group)
{
    assert_int_equal(quire_options_init(options, sizeof *options), QUIRE_OK);
    *group = (quire_group){.layers = 4, .kv_heads = 2, .head_dim = 64, .dtype = QUIRE_DTYPE_BF16};
    options->groups = group;
    options->group_count = 1;
    options->device = "host";
    options->block_tokens = 16;
    options->device_bytes = 1 << 20;
    options->host_bytes = 16 << 20;
    options->threads = 1;
    options->log_level = QUIRE_LOG_OFF;
    options->pack = QUIRE_PACK_AUTO;
    options->pieces = QUIRE_PIECES_AUTO;
    options->calibration = file;
}

/* What is in force after an open. */
static quire_options opened(const quire_options *options)
{
    quire_cache *cache = NULL;
    assert_int_equal(quire_cache_open(&cache, options), QUIRE_OK);
    quire_options force = *quire_cache_options(cache);
    quire_cache_close(cache);
    return force;
}

/* A file that says what packing, and gathering, take of a copy's 1000 ns. */
static void plant(const quire_options *options, uint64_t gather_ns, uint64_t pack_ns)
{
    quire__device *device;
    quire__device_config config = {.threads = 1};
    char identity[200];
    quire__pack_shape shape;
    quire__calibration entry = {.copy_ns = 1000, .gather_ns = gather_ns, .pack_ns = pack_ns};

    assert_int_equal(quire__device_open(&device, options->device, &config), QUIRE_OK);
    quire__device_identity(device, identity, sizeof identity);
    quire__device_close(device);
    assert_int_equal(quire_block_bytes(options, &entry.block_bytes), QUIRE_OK);
    assert_int_equal(quire__pack_shape_make(&shape, (int64_t)entry.block_bytes, 16 * 2 * 64 * 2), QUIRE_OK);
    entry.unit_elements = (uint32_t)shape.unit_elements;
    quire__calibration_store(file, identity, &entry);
}

static void auto_is_what_the_file_says_and_a_variable_overrides_it(void **state)
{
    quire_options options;
    quire_group group;

    (void)state;
    auto_options(&options, &group);
    plant(&options, 0, 700);
    assert_int_equal(opened(&options).pack, QUIRE_PACK_ON);
    plant(&options, 0, 1300);
    assert_int_equal(opened(&options).pack, QUIRE_PACK_OFF);
    plant(&options, 100, 1300); /* on the host nothing is gathered unless it was asked for */
    assert_int_equal(opened(&options).pieces, QUIRE_PIECES_COPY);
    options.pieces = QUIRE_PIECES_GATHER;
    assert_int_equal(opened(&options).pieces, QUIRE_PIECES_GATHER);
    options.pieces = QUIRE_PIECES_COPY;
    plant(&options, 0, 700);
    options.pack = QUIRE_PACK_OFF;
    assert_int_equal(opened(&options).pack, QUIRE_PACK_OFF);
    options.pack = QUIRE_PACK_ON;
    plant(&options, 0, 1300);
    assert_int_equal(opened(&options).pack, QUIRE_PACK_ON);
}

static void only_a_calibration_writes(void **state)
{
    quire_options options;
    quire_group group;

    (void)state;
    auto_options(&options, &group);
    options.pack = QUIRE_PACK_OFF; /* nothing to find out */
    (void)opened(&options);
    options.pack = QUIRE_PACK_ON;
    (void)opened(&options);
    options.pack = QUIRE_PACK_AUTO;
    options.host_bytes = 8 << 20; /* not worth it */
    (void)opened(&options);
    options.host_bytes = 16 << 20;
    options.device = "sim:1"; /* no time that means anything */
    assert_int_equal(opened(&options).pack, QUIRE_PACK_OFF);
    options.device = "host";
    group.dtype = QUIRE_DTYPE_F16; /* cannot be packed */
    (void)opened(&options);
    assert_false(there(file));
    group.dtype = QUIRE_DTYPE_BF16;
    options.calibration = "off";
    assert_int_equal(opened(&options).pack, QUIRE_PACK_OFF);
    assert_false(there("off"));
    options.calibration = file;
    (void)opened(&options);
    assert_true(there(file));
}

static void a_measurement_is_of_this_machine(void **state)
{
    quire_options options;
    quire_group group;
    quire__device *device;
    quire__device_config config = {.threads = 1};
    quire__pack_shape shape;

    (void)state;
    auto_options(&options, &group);
    assert_int_equal(quire__device_open(&device, "host", &config), QUIRE_OK);
    assert_int_equal(quire__pack_shape_make(&shape, 32768, 4096), QUIRE_OK);
    uint64_t copy = quire__calibrate_path(device, &quire__allocator_default, 32768, QUIRE__PATH_COPY, NULL);
    uint64_t gather = quire__calibrate_path(device, &quire__allocator_default, 32768, QUIRE__PATH_GATHER, NULL);
    uint64_t pack = quire__calibrate_path(device, &quire__allocator_default, 32768, QUIRE__PATH_PACK, &shape);
    print_message("a block of 32 KiB there and back: copy %.1f us, gather %.1f, pack %.1f\n", (double)copy / 1e3,
                  (double)gather / 1e3, (double)pack / 1e3);
    assert_true(copy > 0 && gather > 0 && pack > 0);
    quire__device_close(device);
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_FOLDER(what_is_stored_is_loaded),
        IN_A_FOLDER(a_file_of_another_device_or_version_counts_as_empty),
        IN_A_FOLDER(damaged_lines_are_passed_over),
        IN_A_FOLDER(what_cannot_be_written_is_not),
        IN_A_FOLDER(writers_at_the_same_time_leave_a_whole_file),
        IN_A_FOLDER(the_file_is_in_the_users_cache_folder),
        IN_A_FOLDER(auto_is_what_the_file_says_and_a_variable_overrides_it),
        IN_A_FOLDER(only_a_calibration_writes),
        cmocka_unit_test(a_measurement_is_of_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
