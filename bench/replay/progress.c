#define _POSIX_C_SOURCE 200809L
#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "timing.h"

enum { WIDTH = 40 };

void replay_progress_begin(replay_progress *progress, const char *what, bool quiet)
{
    *progress = (replay_progress){.what = what, .began = bench_now(), .on = !quiet && isatty(STDERR_FILENO)};
}

void replay_progress_show(void *user, uint64_t at, uint64_t of)
{
    static const char full[] = "########################################";
    replay_progress *progress = user;
    if (!progress->on)
        return;
    double now = bench_now();
    if (now - progress->began < 1 || now - progress->shown < 0.1)
        return;
    progress->shown = now;
    progress->drawn = true;
    if (of == 0) {
        fprintf(stderr, "\r%s: %" PRIu64 "\033[K", progress->what, at);
        return;
    }
    double part = at < of ? (double)at / (double)of : 1;
    int done = (int)(part * WIDTH);
    double left = part > 0 ? (now - progress->began) / part * (1 - part) : 0;
    fprintf(stderr, "\r%s [%.*s%*s] %3.0f%%, %.0f s left\033[K", progress->what, done, full, WIDTH - done, "",
            part * 100, left);
}

void replay_progress_end(replay_progress *progress)
{
    if (progress->drawn)
        fputs("\r\033[K", stderr);
    progress->drawn = false;
}
