// SPDX-License-Identifier: Apache-2.0
/* settle.h: commits whose outcome is learned also when the node dies in the middle of them. */
#ifndef EXCHANGE_SETTLE_H
#define EXCHANGE_SETTLE_H

#include <shelf.h>

/* Commits a transaction of the session. OK: durable. CONFLICT: without any effect, do it again on what is there now.
 * UNKNOWN only if no node came back in time to be asked. */
shelf_result commit_settled(shelf_session *session, shelf_tx *tx);

/* Reading stopped with UNAVAILABLE: the node died while it wrote what was to be read. Returns when there is one again. */
shelf_result node_await(shelf *s);

#endif
