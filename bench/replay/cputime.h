/* cputime.h: how long this thread has worked. What a replay costs is said in that, so that a machine that does
 * other things too changes the figures little. */
#ifndef REPLAY_CPUTIME_H
#define REPLAY_CPUTIME_H

double replay_cpu_now(void); /* seconds */

#endif
