/* device_sim.h: host memory under an adversarial asynchronous scheduler. For tests. */
#ifndef QUIRE_DEVICE_SIM_H
#define QUIRE_DEVICE_SIM_H

#include "device/device.h"

quire_status quire__device_sim_open(quire__device **device, const quire__device_config *config);

#endif
