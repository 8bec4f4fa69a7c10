// SPDX-License-Identifier: Apache-2.0
/*
 * compare.c: is what the region holds what it should hold?
 *
 * One read-only transaction sees everything at one moment, however long it takes; it registers nowhere and stops no
 * writer. Each comparison stops at its first difference and says what it is.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "compare.h"
#include "ladder.h"
#include "report.h"
#include "trades.h"
#include "try.h"

struct comparison {
    shelf_tx *tx;
    struct store *store;
    const struct plain *plain;
    struct state state;
    struct findings *findings;
};

void finding_begin(struct findings *findings, const char *name) {
    findings->list[findings->count++] = (struct finding){.name = name, .good = true};
}

bool finding_is_good(const struct findings *findings) {
    return findings->list[findings->count - 1].good;
}

void differ(struct findings *findings, const char *format, ...) {
    struct finding *now = &findings->list[findings->count - 1];
    if (!now->good)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(now->detail, sizeof(now->detail), format, arguments);
    va_end(arguments);
    now->good = findings->good = false;
}

void agree(struct findings *findings, const char *format, ...) {
    struct finding *now = &findings->list[findings->count - 1];
    if (!now->good)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(now->detail, sizeof(now->detail), format, arguments);
    va_end(arguments);
}

/* ---- Events and trades ---- */

static void tally_compare(struct comparison *comparison) {
    static const char *const names[] = {"created",          "changed",        "cancelled",
                                        "filled_elsewhere", "already_filled", "unknown",
                                        "duplicate",        "trades",         "resting"};
    uint64_t here[9], there[9];
    _Static_assert(sizeof(here) == sizeof(struct tally), "one name a counter");
    memcpy(here, &comparison->state.tally, sizeof(here));
    memcpy(there, &comparison->plain->tally, sizeof(there));

    finding_begin(comparison->findings, "events");
    for (unsigned i = 0; i < 9; i++) {
        if (here[i] != there[i])
            differ(comparison->findings, "%s: %" PRIu64 " in the region, %" PRIu64 " in the replay", names[i],
                   here[i], there[i]);
    }
    uint64_t sum = 0;
    for (unsigned i = 0; i < 7; i++)
        sum += here[i];
    if (sum != comparison->state.position)
        differ(comparison->findings, "the outcomes of %" PRIu64 " events add up to %" PRIu64,
               comparison->state.position, sum);
    char count[NUMBER_TEXT_MAX];
    agree(comparison->findings, "%s events, each with the same outcome",
          number_text(comparison->state.position, count));
}

struct trade_comparison {
    struct comparison *comparison;
    struct trade_digest digest;
};

static shelf_result trade_compare(void *context, uint64_t number, const struct trade *trade) {
    struct trade_comparison *trades = context;
    const struct plain *plain = trades->comparison->plain;
    char here[TRADE_LINE_MAX], there[TRADE_LINE_MAX];

    trade_digest_add(&trades->digest, trade);
    if (number < plain->trade_count && memcmp(trade, &plain->trades[number], sizeof(*trade)) != 0) {
        here[trade_format(trade, here) - 1] = '\0';
        there[trade_format(&plain->trades[number], there) - 1] = '\0';
        differ(trades->comparison->findings, "trade %" PRIu64 ": %s in the region, %s in the replay", number,
               here, there);
    }
    return SHELF_OK;
}

static shelf_result trades_compare(struct comparison *comparison) {
    struct trade_comparison trades = {.comparison = comparison};
    struct trade_digest replay;
    char replay_sha256[65];

    finding_begin(comparison->findings, "trades");
    trade_digest_begin(&trades.digest);
    shelf_result result = trades_visit(comparison->tx, comparison->store, trade_compare, &trades);
    uint64_t count = trades.digest.count;
    trade_digest_end(&trades.digest, comparison->findings->trades_sha256);
    if (result != SHELF_OK)
        return result;

    trade_digest_begin(&replay);
    for (size_t i = 0; i < comparison->plain->trade_count; i++)
        trade_digest_add(&replay, &comparison->plain->trades[i]);
    trade_digest_end(&replay, replay_sha256);

    if (count != comparison->plain->trade_count)
        differ(comparison->findings, "%" PRIu64 " in the region, %zu in the replay", count,
               comparison->plain->trade_count);
    if (strcmp(comparison->findings->trades_sha256, replay_sha256) != 0)
        differ(comparison->findings, "sha256 %s in the region, %s in the replay",
               comparison->findings->trades_sha256, replay_sha256);
    char text[NUMBER_TEXT_MAX];
    agree(comparison->findings, "%s trades, sha256 %s", number_text(count, text), replay_sha256);
    return SHELF_OK;
}

/* ---- The book ---- */

/* Is the order known under its id, at this address? (I3) */
static shelf_result order_is_mapped(struct comparison *comparison, const struct order *order, shelf_addr at) {
    shelf_addr mapped = SHELF_NULL;
    size_t size = 0;
    shelf_result result = shelf_map_get(comparison->tx, comparison->store->orders, &order->id,
                                        sizeof(order->id), &mapped, sizeof(mapped), &size);
    if (result != SHELF_OK && result != SHELF_NOT_FOUND)
        return result;
    if (result == SHELF_NOT_FOUND || size != sizeof(mapped) || mapped != at)
        differ(comparison->findings, "order %" PRIu64 " is in the book, but not in the map at its address",
               order->id);
    return SHELF_OK;
}

/* Walks the orders of one level, the oldest first, beside the replay's. */
static shelf_result level_compare(struct comparison *comparison, unsigned side, shelf_addr level_at,
                                  uint32_t price, size_t *place) {
    const struct plain_side *replay = &comparison->plain->sides[side];
    struct level level;
    shelf_addr previous = SHELF_NULL;
    uint64_t volume = 0, count = 0;

    TRY(shelf_read(comparison->tx, level_at, &level, sizeof(level)));
    for (shelf_addr at = level.first; at != SHELF_NULL;) {
        struct order order;
        TRY(shelf_read(comparison->tx, at, &order, sizeof(order)));
        TRY(order_is_mapped(comparison, &order, at));
        const struct plain_order *expected =
            *place < replay->count ? replay->orders[replay->count - 1 - *place] : NULL;
        if (!expected || expected->id != order.id || expected->left != order.left ||
            expected->price != order.price)
            differ(comparison->findings,
                   "order %" PRIu64 " (%" PRIu64 " left) stands where the replay has order %" PRIu64,
                   order.id, order.left, expected ? expected->id : 0);
        if (order.side != side || order.price != price || order.level != level_at ||
            order.previous != previous || order.left == 0)
            differ(comparison->findings, "order %" PRIu64 " does not belong where it is linked", order.id);
        if (!finding_is_good(comparison->findings))
            return SHELF_OK; /* a damaged list may have no end */
        volume += order.left;
        count++;
        (*place)++;
        previous = at;
        at = order.next;
    }
    if (level.price != price || level.last != previous || level.count != count || level.volume != volume)
        differ(comparison->findings, "level %u.%02u does not fit the orders in it", price / 100, price % 100);
    return SHELF_OK;
}

static shelf_result side_compare(struct comparison *comparison, unsigned side, size_t *ret_levels) {
    bool down = side == SIDE_BID;
    uint32_t price = down ? PRICE_MAX : 0;
    size_t place = 0;
    shelf_addr level;

    while (finding_is_good(comparison->findings)) {
        shelf_result result = ladder_seek(comparison->tx, comparison->state.ladders[side], price,
                                          down ? LADDER_DOWN : LADDER_UP, &price, &level);
        if (result == SHELF_NOT_FOUND)
            break;
        if (result != SHELF_OK)
            return result;
        TRY(level_compare(comparison, side, level, price, &place));
        (*ret_levels)++;
        if (price == (down ? 0 : PRICE_MAX))
            break;
        price = down ? price - 1 : price + 1;
    }
    if (place != comparison->plain->sides[side].count)
        differ(comparison->findings, "%zu %s in the region, %zu in the replay", place, down ? "bids" : "asks",
               comparison->plain->sides[side].count);
    return SHELF_OK;
}

static shelf_result book_compare(struct comparison *comparison) {
    size_t levels = 0;
    finding_begin(comparison->findings, "book");
    TRY(side_compare(comparison, SIDE_BID, &levels));
    TRY(side_compare(comparison, SIDE_ASK, &levels));
    char orders[NUMBER_TEXT_MAX];
    agree(comparison->findings, "%s orders on %zu prices, in the same order of precedence",
          number_text(comparison->state.tally.resting, orders), levels);
    return SHELF_OK;
}

/* ---- Accounts ---- */

static shelf_result accounts_compare(struct comparison *comparison) {
    struct account accounts[ACCOUNTS];
    struct account *sum = &comparison->findings->sum;

    TRY(shelf_read(comparison->tx, comparison->store->accounts, accounts, sizeof(accounts)));
    finding_begin(comparison->findings, "balances");
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        if (memcmp(&accounts[i], &comparison->plain->accounts[i], sizeof(accounts[i])) != 0)
            differ(comparison->findings, "account %u has another balance than in the replay", i);
        sum->coins += accounts[i].coins;
        sum->money += accounts[i].money;
    }
    agree(comparison->findings, "%u accounts, all the same", ACCOUNTS);

    finding_begin(comparison->findings, "conservation");
    if (sum->coins != ENDOWMENT_COINS * ACCOUNTS)
        differ(comparison->findings, "coins were made or lost");
    if (sum->money != ENDOWMENT_MONEY * ACCOUNTS)
        differ(comparison->findings, "money was made or lost");
    char coins[NUMBER_TEXT_MAX], money[NUMBER_TEXT_MAX];
    agree(comparison->findings, "%s coins and %s of money, as on the first day",
          fixed_text(sum->coins, 8, 0, coins), fixed_text(sum->money, 10, 2, money));
    return SHELF_OK;
}

/* ---- What lies below ---- */

/* CORRUPT from one of these is a finding; anything else is a failure to look. */
static shelf_result structures_compare(struct comparison *comparison) {
    const struct tally *tally = &comparison->state.tally;
    struct shelf_alloc_sums audit = {0};
    uint64_t mapped = 0;

    finding_begin(comparison->findings, "structures");
    shelf_result result = shelf_map_verify(comparison->tx, comparison->store->orders);
    if (result == SHELF_OK)
        result = shelf_stream_verify(comparison->tx, comparison->store->trades);
    if (result == SHELF_OK)
        result = shelf_alloc_audit(comparison->tx, comparison->store->region, &audit);
    if (result == SHELF_OK)
        result = shelf_map_count(comparison->tx, comparison->store->orders, &mapped);
    if (result == SHELF_CORRUPT) {
        differ(comparison->findings, "%s", shelf_detail());
        return SHELF_OK;
    }
    if (result != SHELF_OK)
        return result;
    if (mapped != tally->created - tally->cancelled - tally->filled_elsewhere - tally->already_filled)
        differ(comparison->findings,
               "the map of orders has %" PRIu64 " entries, which is not what came minus what went", mapped);
    agree(comparison->findings, "map, stream and allocator are sound; %" PRIu64 " of %" PRIu64 " KiB in use",
          audit.live >> 10, audit.total >> 10);
    return SHELF_OK;
}

static shelf_result all_compare(struct comparison *comparison) {
    TRY(shelf_read(comparison->tx, comparison->store->state, &comparison->state, sizeof(comparison->state)));
    comparison->findings->position = comparison->state.position;
    tally_compare(comparison);
    TRY(trades_compare(comparison));
    TRY(book_compare(comparison));
    TRY(accounts_compare(comparison));
    return structures_compare(comparison);
}

shelf_result exchange_compare(struct store *store, const struct plain *plain, struct findings *findings) {
    struct comparison comparison = {.store = store, .plain = plain, .findings = findings};
    TRY(shelf_begin(store->s, SHELF_READ_ONLY, &comparison.tx));
    shelf_result result = all_compare(&comparison);
    shelf_abort(comparison.tx);
    return result;
}
