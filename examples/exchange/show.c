// SPDX-License-Identifier: Apache-2.0
/* show.c: `exchange book` and `exchange trades`: what is in the region, for people and for programs. */
#include "book.h"
#include "live.h"
#include "options.h"
#include "report.h"
#include "trades.h"
#include "try.h"

typedef int (*shower)(const struct options *options, struct store *store);

static int store_show(const struct options *options, shower show) {
    struct store store;
    shelf_result result = store_open(options->where, NULL, &store);
    if (result != SHELF_OK)
        return shelf_failed(options->where, result);
    int code = show(options, &store);
    result = store_close(&store);
    if (result != SHELF_OK && code == EXIT_CODE_OK)
        code = shelf_failed("closing", result);
    return code;
}

static int book_show(const struct options *options, struct store *store) {
    static struct book_view view; /* large, and there is one */
    shelf_result result = book_look(store, (size_t)options->depth, &view);
    if (result != SHELF_OK)
        return shelf_failed("reading the book", result);
    if (options->json)
        book_json(&view);
    else
        book_print(&view);
    return EXIT_CODE_OK;
}

static shelf_result trade_print(void *context, uint64_t number, const struct trade *trade) {
    char line[TRADE_LINE_MAX];
    (void)context;
    (void)number;
    trade_format(trade, line);
    fputs(line, stdout);
    return SHELF_OK;
}

static int trades_show(const struct options *options, struct store *store) {
    shelf_tx *tx;
    (void)options;
    shelf_result result = shelf_begin(store->s, SHELF_READ_ONLY, &tx);
    if (result == SHELF_OK) {
        result = trades_visit(tx, store, trade_print, NULL);
        shelf_abort(tx);
    }
    return result == SHELF_OK ? EXIT_CODE_OK : shelf_failed("reading the trades", result);
}

int command_book(const struct options *options) {
    return store_show(options, options->live ? book_follow : book_show);
}

int command_trades(const struct options *options) {
    return store_show(options, trades_show);
}
