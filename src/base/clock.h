/* clock.h: monotonic time, for deadlines, and for the deciding half, which is told it: it has no clock itself. */
#ifndef QUIRE_CLOCK_H
#define QUIRE_CLOCK_H

#include <stdint.h>

uint64_t quire__clock_us(void);
void quire__clock_sleep_us(uint64_t us);

#endif
