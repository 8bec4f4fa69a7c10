// SPDX-License-Identifier: Apache-2.0
//
// A crash at every io of three small workloads: before it, in its middle, after it; and for one of them again in every io of
// the recovery, for the others at a sample.

#ifndef SIM_SWEEP_H
#define SIM_SWEEP_H

#include <stdint.h>

int sweep_run(uint32_t jobs);

#endif
