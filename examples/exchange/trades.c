// SPDX-License-Identifier: Apache-2.0
/* trades.c: reads the stream of trades, as text and as a hash. */
#include "trades.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "try.h"

size_t trade_format(const struct trade *trade, char ret_line[TRADE_LINE_MAX]) {
    int size =
        snprintf(ret_line, TRADE_LINE_MAX, "%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%u.%02u,%" PRIu64 ",%s\n",
                 trade->time_ms, trade->maker, trade->taker, trade->price / 100, trade->price % 100,
                 trade->volume, trade->taker_side == SIDE_BID ? "bid" : "ask");
    return (size_t)size;
}

/* Hashing small buffers in memory fails only without memory, and then there is nothing sensible left to do. */
static void must(int good) {
    if (!good) {
        fputs("exchange: SHA-256 is not available\n", stderr);
        exit(4);
    }
}

void trade_digest_begin(struct trade_digest *digest) {
    digest->count = 0;
    digest->context = EVP_MD_CTX_new();
    must(digest->context && EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL));
}

void trade_digest_add(struct trade_digest *digest, const struct trade *trade) {
    char line[TRADE_LINE_MAX];
    size_t size = trade_format(trade, line);
    must(EVP_DigestUpdate(digest->context, line, size));
    digest->count++;
}

void trade_digest_end(struct trade_digest *digest, char ret_hex[65]) {
    unsigned char hash[EVP_MAX_MD_SIZE];
    must(EVP_DigestFinal_ex(digest->context, hash, NULL));
    for (int i = 0; i < 32; i++)
        snprintf(ret_hex + (size_t)(2 * i), 3, "%02x", hash[i]);
    EVP_MD_CTX_free(digest->context);
    digest->context = NULL;
}

shelf_result trades_visit(shelf_tx *tx, const struct store *store, trade_visitor each, void *context) {
    uint64_t first, next;
    TRY(shelf_stream_bounds(tx, store->trades, &first, &next));
    for (uint64_t number = first; number < next; number++) {
        struct trade trade = {0};
        size_t size;
        TRY(shelf_stream_read(tx, store->trades, number, &trade, sizeof(trade), &size, NULL));
        if (size != sizeof(trade))
            return SHELF_CORRUPT;
        TRY(each(context, number, &trade));
    }
    return SHELF_OK;
}

static shelf_result digest_visit(void *context, uint64_t number, const struct trade *trade) {
    (void)number;
    trade_digest_add(context, trade);
    return SHELF_OK;
}

shelf_result trades_digest(struct store *store, char ret_hex[65]) {
    struct trade_digest digest;
    shelf_tx *tx;
    TRY(shelf_begin(store->s, SHELF_READ_ONLY, &tx));
    trade_digest_begin(&digest);
    shelf_result result = trades_visit(tx, store, digest_visit, &digest);
    shelf_abort(tx);
    trade_digest_end(&digest, ret_hex);
    return result;
}
