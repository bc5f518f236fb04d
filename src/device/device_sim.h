/* device_sim.h: host memory under an adversarial asynchronous scheduler. For tests. */
#ifndef QUIRE_DEVICE_SIM_H
#define QUIRE_DEVICE_SIM_H

#include "device/device.h"

/* Copies between pinned and device memory take their time from here on, at so many bytes a second in each stream; 0: none. */
void quire__device_sim_set_link(quire__device *device, uint64_t bytes_per_s);
/* From here on all streams share that link, whose copies cross in the order in which they were enqueued. Waits for what is queued. */
void quire__device_sim_share_link(quire__device *device);
/* How pinning pieces of pools goes from here on, on all sim devices: the first `good` succeed, and whoever asks for more than
 * `allowed` waits until more are allowed. UINT32_MAX each, as at first: all, and at once. */
void quire__device_sim_set_pins(uint32_t allowed, uint32_t good);
/* Of the same count. */
void quire__device_sim_allow_pins(uint32_t allowed);
quire_status quire__device_sim_open(quire__device **device, const quire__device_config *config);

#endif
