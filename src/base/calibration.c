#define _GNU_SOURCE 1
#include "base/calibration.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char heading[] = "quire calibration 1\n";

enum { LINE_BYTES = 256 };

/* ---- where --------------------------------------------------------------------------------------------------- */

static const char *variable(const char *name)
{
    const char *text = getenv(name);
    return text != NULL && text[0] != '\0' ? text : NULL;
}

bool quire__calibration_path(const char *setting, const char *device, char *path, size_t capacity)
{
    const char *cache = variable("XDG_CACHE_HOME"), *home = variable("HOME");
    int length;

    if (setting != NULL && setting[0] != '\0') {
        length = snprintf(path, capacity, "%s", setting);
        return strcmp(setting, "off") != 0 && length > 0 && (size_t)length < capacity;
    }
    if (cache != NULL && cache[0] == '/') /* the specification wants relative ones to be ignored */
        length = snprintf(path, capacity, "%s/quire/calibration-%s.txt", cache, device);
    else if (home != NULL)
        length = snprintf(path, capacity, "%s/.cache/quire/calibration-%s.txt", home, device);
    else
        return false;
    if (length < 0 || (size_t)length >= capacity)
        return false;
    for (char *at = strrchr(path, '\0') - strlen(device) - 4; strcmp(at, ".txt") != 0; at++)
        if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.", *at) == NULL)
            *at = '_';
    return true;
}

/* ---- what ---------------------------------------------------------------------------------------------------- */

static bool parse(const char *line, quire__calibration *entry)
{
    unsigned long long block, copy, gather, pack;
    unsigned unit;
    int end = -1;
    if (strchr(line, '-') != NULL || /* scanf would take it */
        sscanf(line, "block %llu unit %u copy %llu gather %llu pack %llu%n", &block, &unit, &copy, &gather, &pack, &end) != 5 ||
        end < 0 || strcmp(line + end, "\n") != 0 || block == 0 || copy == 0)
        return false;
    *entry = (quire__calibration){block, unit, copy, gather, pack};
    return true;
}

/* The good lines, at most QUIRE__CALIBRATION_LINES, the newest. */
static int read_all(const char *path, const char *device, quire__calibration *entries)
{
    char line[LINE_BYTES], own[LINE_BYTES];
    int count = 0;
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return 0;
    snprintf(own, sizeof own, "device %.200s\n", device);
    bool good = fgets(line, sizeof line, file) != NULL && strcmp(line, heading) == 0 &&
                fgets(line, sizeof line, file) != NULL && strcmp(line, own) == 0;
    for (int lines = 0; good && lines < 16 * QUIRE__CALIBRATION_LINES && fgets(line, sizeof line, file) != NULL; lines++) {
        quire__calibration entry;
        if (!parse(line, &entry))
            continue;
        if (count == QUIRE__CALIBRATION_LINES)
            memmove(entries, entries + 1, (size_t)--count * sizeof *entries);
        entries[count++] = entry;
    }
    fclose(file);
    return count;
}

static bool same_block(const quire__calibration *a, const quire__calibration *b)
{
    return a->block_bytes == b->block_bytes && a->unit_elements == b->unit_elements;
}

bool quire__calibration_load(const char *path, const char *device, quire__calibration *entry)
{
    quire__calibration entries[QUIRE__CALIBRATION_LINES];
    int count = read_all(path, device, entries);

    for (int i = count; i-- > 0;)
        if (same_block(&entries[i], entry)) {
            *entry = entries[i];
            return true;
        }
    return false;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

/* The last two folders of the path, where they are missing: ~/.cache and ~/.cache/quire. */
static void make_folders(const char *path)
{
    char folder[4096];
    const char *last = strrchr(path, '/');
    if (last == NULL || last == path || (size_t)(last - path) >= sizeof folder)
        return;
    memcpy(folder, path, (size_t)(last - path));
    folder[last - path] = '\0';
    char *before = strrchr(folder, '/');
    if (before != NULL && before != folder) {
        *before = '\0';
        (void)mkdir(folder, 0700);
        *before = '/';
    }
    (void)mkdir(folder, 0700);
}

static bool write_all(FILE *file, const char *device, const quire__calibration *entries, int count)
{
    bool good = fprintf(file, "%sdevice %.200s\n", heading, device) > 0;
    for (int i = 0; i < count; i++)
        good = good && fprintf(file, "block %llu unit %u copy %llu gather %llu pack %llu\n",
                               (unsigned long long)entries[i].block_bytes, entries[i].unit_elements,
                               (unsigned long long)entries[i].copy_ns, (unsigned long long)entries[i].gather_ns,
                               (unsigned long long)entries[i].pack_ns) > 0;
    return good;
}

void quire__calibration_store(const char *path, const char *device, const quire__calibration *entry)
{
    static atomic_uint turn;
    quire__calibration entries[QUIRE__CALIBRATION_LINES + 1];
    char fresh[4096 + 32];
    int kept = 0, count = read_all(path, device, entries);

    for (int i = count == QUIRE__CALIBRATION_LINES; i < count; i++)
        if (!same_block(&entries[i], entry))
            entries[kept++] = entries[i];
    entries[kept++] = *entry;
    int length = snprintf(fresh, sizeof fresh, "%s.%ld.%u", path, (long)getpid(), atomic_fetch_add(&turn, 1));
    if (length < 0 || (size_t)length >= sizeof fresh)
        return;
    FILE *file = fopen(fresh, "wxe");
    if (file == NULL && errno == ENOENT) {
        make_folders(path);
        file = fopen(fresh, "wxe");
    }
    if (file == NULL)
        return;
    bool good = write_all(file, device, entries, kept);
    good = fclose(file) == 0 && good; /* a full disk may only be noticed here */
    if (!good || rename(fresh, path) != 0)
        (void)unlink(fresh);
}
