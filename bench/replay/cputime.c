#define _POSIX_C_SOURCE 200809L
#include "cputime.h"

#include <time.h>

double replay_cpu_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}
