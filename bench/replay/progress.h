/* progress.h: a bar on stderr, where that is a terminal, for what takes longer than a second. */
#ifndef REPLAY_PROGRESS_H
#define REPLAY_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct replay_progress {
    const char *what;
    double began, shown;
    bool on, drawn;
} replay_progress;

/* `quiet`: never shown. */
void replay_progress_begin(replay_progress *progress, const char *what, bool quiet);
/* A callback: `user` is the progress. `of` 0: not known, and then the bar is a count. */
void replay_progress_show(void *user, uint64_t at, uint64_t of);
/* Takes the bar off the screen. */
void replay_progress_end(replay_progress *progress);

#endif
