/* address.h: a connection of two processes: "unix:PATH", or "HOST:PORT" over TCP.
 *
 * Errors: see error.h.
 */
#ifndef INFER_ADDRESS_H
#define INFER_ADDRESS_H

#include "error.h"

#include <stdint.h>

/* One side meets the other: waits for it there, or goes there and tries again until somebody waits. Ends by the timeout.
 * *socket is connected, and the caller's. A Unix path that is left over from a process that died is used again. */
int address_await(const char *address, uint64_t timeout_us, int *socket, infer_error *error);
int address_reach(const char *address, uint64_t timeout_us, int *socket, infer_error *error);

#endif
