/* clock.h: monotonic time, for deadlines only. The deciding half has no clock. */
#ifndef QUIRE_CLOCK_H
#define QUIRE_CLOCK_H

#include <stdint.h>

uint64_t quire__clock_us(void);
void quire__clock_sleep_us(uint64_t us);

#endif
