/* workers.h: a few threads that share loops.
 *
 * workers_for hands out the indices of one loop at a time; the caller takes its share and returns when all are done.
 * A thread that the system has put to sleep is not waited for unless it holds an index, and waiting threads spin for
 * some microseconds only: on a busy machine an OpenMP team with its spinning barriers took 25 times as long. */
#ifndef INFER_WORKERS_H
#define INFER_WORKERS_H

#include "error.h"

#include <stddef.h>

typedef struct workers workers;

/* `threads` counts the caller's own; 0: one a core. */
int workers_open(workers **out, unsigned threads, infer_error *error);
void workers_close(workers *workers); /* NULL is allowed */
/* Runs body(arg, i) for every i < count, in any order. One loop at a time, and not from a body. */
void workers_for(workers *workers, size_t count, void (*body)(void *arg, size_t index), void *arg);
unsigned workers_count(const workers *workers);

#endif
