// SPDX-License-Identifier: Apache-2.0
/* status_cluster.h: what `shelf status` says of a cluster. */
#ifndef CMD_STATUS_CLUSTER_H
#define CMD_STATUS_CLUSTER_H

#include <jansson.h>

#include "shelf.h"

void status_cluster_print(const struct shelf_cluster_info *info);
json_t *status_cluster_json(const struct shelf_cluster_info *info);

#endif
