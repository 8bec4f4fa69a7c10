// SPDX-License-Identifier: Apache-2.0
/* book.c: see book.h. */
#include "book.h"

#include <jansson.h>

#include "ladder.h"
#include "report.h"
#include "try.h"

#define BAR_WIDTH 16u

static shelf_result ladder_look(shelf_tx *tx, shelf_addr ladder, bool down, size_t depth,
                                struct ladder_view *view) {
    uint32_t price = down ? PRICE_MAX : 0;
    while (view->count < depth) {
        shelf_addr level;
        shelf_result result = ladder_seek(tx, ladder, price, down ? LADDER_DOWN : LADDER_UP, &price, &level);
        if (result == SHELF_NOT_FOUND)
            break;
        if (result != SHELF_OK)
            return result;
        TRY(shelf_read(tx, level, &view->levels[view->count++], sizeof(struct level)));
        if (price == (down ? 0 : PRICE_MAX))
            break;
        price = down ? price - 1 : price + 1;
    }
    return SHELF_OK;
}

struct book_looking {
    const struct store *store;
    size_t depth;
    struct book_view *view;
};

static shelf_result book_read(shelf_tx *tx, void *context) {
    const struct book_looking *looking = context;
    const struct store *store = looking->store;
    struct book_view *view = looking->view;
    size_t depth = looking->depth, size;
    uint64_t first, next;

    view->sides[SIDE_BID].count = view->sides[SIDE_ASK].count = 0;
    TRY(shelf_read(tx, store->state, &view->state, sizeof(view->state)));
    TRY(ladder_look(tx, view->state.ladders[SIDE_BID], true, depth, &view->sides[SIDE_BID]));
    TRY(ladder_look(tx, view->state.ladders[SIDE_ASK], false, depth, &view->sides[SIDE_ASK]));
    TRY(shelf_stream_bounds(tx, store->trades, &first, &next));
    view->traded = next > first;
    if (view->traded)
        TRY(shelf_stream_read(tx, store->trades, next - 1, &view->last, sizeof(view->last), &size, NULL));
    view->index = shelf_tx_index(tx);
    return SHELF_OK;
}

/* Writers do not wait for readers: if one of them changes the book in the middle of the look, it is taken once more. */
shelf_result book_look(const struct store *store, size_t depth, struct book_view *ret_view) {
    struct book_looking looking = {store, depth < DEPTH_MAX ? depth : DEPTH_MAX, ret_view};
    return shelf_run(store->s, SHELF_READ_ONLY, book_read, &looking, 0, NULL);
}

/* ---- The book for programs ---- */

static json_t *side_json(const struct ladder_view *view) {
    json_t *list = json_array();
    for (size_t i = 0; i < view->count; i++)
        json_array_append_new(list, json_pack("{s:I, s:I, s:I}", "cents", (json_int_t)view->levels[i].price,
                                              "volume", (json_int_t)view->levels[i].volume, "orders",
                                              (json_int_t)view->levels[i].count));
    return list;
}

void book_json(const struct book_view *view) {
    json_t *json =
        json_pack("{s:I, s:I, s:I, s:o, s:o}", "position", (json_int_t)view->state.position, "resting",
                  (json_int_t)view->state.tally.resting, "trades", (json_int_t)view->state.tally.trades,
                  "bids", side_json(&view->sides[SIDE_BID]), "asks", side_json(&view->sides[SIDE_ASK]));
    if (view->traded)
        json_object_set_new(json, "last_cents", json_integer((json_int_t)view->last.price));
    json_dumpf(json, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(json);
}

/* ---- The book for people ---- */

static void bar_print(uint64_t volume, uint64_t volume_max, bool to_the_left) {
    unsigned length = volume_max ? (unsigned)((__int128)volume * BAR_WIDTH / volume_max) : 0;
    if (length == 0 && volume > 0)
        length = 1;
    for (unsigned i = 0; i < BAR_WIDTH; i++)
        putchar((to_the_left ? BAR_WIDTH - i : i + 1) <= length ? '=' : ' ');
}

static void bid_print(const struct ladder_view *view, size_t row, uint64_t volume_max,
                      const struct colours *c) {
    char volume[NUMBER_TEXT_MAX];
    if (row >= view->count) {
        printf("%*s", (int)BAR_WIDTH + 34, "");
        return;
    }
    const struct level *level = &view->levels[row];
    printf("%s", c->bid);
    bar_print(level->volume, volume_max, true);
    printf("%s %14s %s%6u%s %s%11u.%02u%s", c->off, fixed_text((__int128)level->volume, 8, 4, volume), c->dim,
           level->count, c->off, c->bid, level->price / 100, level->price % 100, c->off);
}

/* The price is printed first, left-aligned, so that both best prices meet in the middle. */
static void ask_print(const struct ladder_view *view, size_t row, uint64_t volume_max,
                      const struct colours *c) {
    char volume[NUMBER_TEXT_MAX], price[NUMBER_TEXT_MAX];
    if (row >= view->count)
        return;
    const struct level *level = &view->levels[row];
    printf("%s%-11s%s %s%6u%s %14s ", c->ask, fixed_text(level->price, 2, 2, price), c->off, c->dim,
           level->count, c->off, fixed_text((__int128)level->volume, 8, 4, volume));
    printf("%s", c->ask);
    bar_print(level->volume, volume_max, false);
    printf("%s", c->off);
}

static uint64_t volume_largest(const struct book_view *view) {
    uint64_t largest = 0;
    for (unsigned side = 0; side < 2; side++) {
        for (size_t i = 0; i < view->sides[side].count; i++) {
            if (view->sides[side].levels[i].volume > largest)
                largest = view->sides[side].levels[i].volume;
        }
    }
    return largest;
}

void book_print(const struct book_view *view) {
    const struct colours c = colours_for(stdout);
    const struct ladder_view *bids = &view->sides[SIDE_BID], *asks = &view->sides[SIDE_ASK];
    size_t rows = bids->count > asks->count ? bids->count : asks->count;
    uint64_t volume_max = volume_largest(view);
    char a[NUMBER_TEXT_MAX], b[NUMBER_TEXT_MAX];

    printf("%safter event %s, %s orders", c.dim, number_text(view->state.position, a),
           number_text(view->state.tally.resting, b));
    if (bids->count > 0 && asks->count > 0)
        printf(", spread %s", fixed_text((__int128)asks->levels[0].price - bids->levels[0].price, 2, 2, a));
    if (view->traded)
        printf(", last trade at %s", fixed_text(view->last.price, 2, 2, a));
    printf("%s\n", c.off);
    if (rows == 0) {
        puts("the book is empty");
        return;
    }
    printf("%*s%15s %6s %14s   %-11s %6s %14s\n", (int)BAR_WIDTH, "", "coins", "orders", "bid", "ask",
           "orders", "coins");
    for (size_t row = 0; row < rows; row++) {
        bid_print(bids, row, volume_max, &c);
        printf("%s", "   ");
        ask_print(asks, row, volume_max, &c);
        putchar('\n');
    }
}
