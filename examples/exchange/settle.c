// SPDX-License-Identifier: Apache-2.0
/* settle.c: see settle.h. */
#include "settle.h"

shelf_result commit_settled(shelf_session *session, shelf_tx *tx) {
    struct shelf_receipt receipt;
    shelf_result result = shelf_commit(tx, &receipt);
    if (result != SHELF_UNKNOWN)
        return result;
    result = shelf_session_outcome(session, receipt.sequence, NULL);
    if (result == SHELF_ABORTED) /* it has had no effect, and now never will */
        return SHELF_CONFLICT;
    return result == SHELF_UNAVAILABLE || result == SHELF_TIMEOUT ? SHELF_UNKNOWN : result;
}

/* A fresh read is one that the node vouches for. */
shelf_result node_await(shelf *s) {
    shelf_tx *tx;
    shelf_result result = shelf_begin(s, SHELF_READ_ONLY | SHELF_FRESH, &tx);
    if (result == SHELF_OK)
        shelf_abort(tx);
    return result;
}
