/* device_sim.h: host memory under an adversarial asynchronous scheduler. For tests. */
#ifndef QUIRE_DEVICE_SIM_H
#define QUIRE_DEVICE_SIM_H

#include "device/device.h"

/* Copies between pinned and device memory take their time from here on, at so many bytes a second in each stream; 0: none. */
void quire__device_sim_set_link(quire__device *device, uint64_t bytes_per_s);
quire_status quire__device_sim_open(quire__device **device, const quire__device_config *config);

#endif
