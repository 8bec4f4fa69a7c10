// SPDX-License-Identifier: Apache-2.0
/* trades.h: the list of trades as text, and the hash that stands for all of it. */
#ifndef EXCHANGE_TRADES_H
#define EXCHANGE_TRADES_H

#include <openssl/evp.h>
#include <stddef.h>

#include "store.h"

#define TRADE_HEADER   "timestamp,maker,taker,price,volume,direction"
#define TRADE_LINE_MAX 128u

/* One line with newline and NUL; returns its length without the NUL. */
size_t trade_format(const struct trade *trade, char ret_line[TRADE_LINE_MAX]);

/* SHA-256 over the lines of all trades in order, without a header: what `exchange trades | sha256sum` prints. */
struct trade_digest {
    EVP_MD_CTX *context; /* owned */
    uint64_t count;
};

void trade_digest_begin(struct trade_digest *digest);
void trade_digest_add(struct trade_digest *digest, const struct trade *trade);
/* 64 hexadecimal digits and NUL. Ends the digest. */
void trade_digest_end(struct trade_digest *digest, char ret_hex[65]);

/* Calls `each` for every trade in the region, oldest first, until it returns something else than OK. */
typedef shelf_result (*trade_visitor)(void *context, uint64_t number, const struct trade *trade);
shelf_result trades_visit(shelf_tx *tx, const struct store *store, trade_visitor each, void *context);

/* The digest of all trades in the region. */
shelf_result trades_digest(struct store *store, char ret_hex[65]);

#endif
