// SPDX-License-Identifier: Apache-2.0
//
// The bank: set-up, transfers, and the checks that follow from the ledgers. Every check says what differs and in which line.

#include "bank.h"

#include "base/hash.h"
#include "base/random.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REGION_SIZE     ((uint64_t)2 << 20)
#define REGION_SIZE_MAX ((uint64_t)256 << 20)
#define JOURNAL_BYTES   ((uint64_t)128 << 10)
#define ROOT_TYPE       0x62616e6bu
#define LETTER_MAX      16384u
#define REPEATS_MAX     100000u // of one transfer because of conflicts

#define TRY(call)                         \
    do {                                  \
        shelf_result try_result = (call); \
        if (try_result != SHELF_OK) {     \
            return try_result;            \
        }                                 \
    } while (0)

// Ends a check with a message.
#define EXPECT(condition, ...)                         \
    do {                                               \
        if (!(condition)) {                            \
            fprintf(stderr, "check: " __VA_ARGS__);    \
            fprintf(stderr, " (line %d)\n", __LINE__); \
            return false;                              \
        }                                              \
    } while (0)

#define EXPECT_OK(call, what)                                                                   \
    do {                                                                                        \
        shelf_result expect_result = (call);                                                    \
        refusal_note(expect_result);                                                            \
        EXPECT(expect_result == SHELF_OK, "%s: %s: %s", what, shelf_result_name(expect_result), \
               shelf_detail());                                                                 \
    } while (0)

// Checking is done by one thread.
static shelf_result refusal = SHELF_OK;

static void refusal_note(shelf_result result) {
    if (result == SHELF_IO || result == SHELF_NO_SPACE || result == SHELF_UNKNOWN ||
        result == SHELF_UNAVAILABLE || result == SHELF_TIMEOUT) {
        refusal = result;
    }
}

shelf_result bank_check_refusal(void) {
    shelf_result result = refusal;
    refusal = SHELF_OK;
    return result;
}

struct root {
    shelf_addr accounts, ledgers, counter;
};

struct letter_key {
    uint64_t teller, n;
};

struct entry { // of the journal
    uint64_t teller, n, chain;
};

struct transfer {
    uint64_t from, to, amount;
    uint64_t hash;
    size_t letter_size;
};

static struct transfer transfer_of(unsigned teller, uint64_t n) {
    uint64_t hash = hash_u64(hash_u64(teller + 1) + n);
    struct transfer transfer = {.hash = hash, .from = hash % BANK_ACCOUNTS, .amount = (hash >> 40) % 100};
    transfer.to = (transfer.from + 1 + (hash >> 20) % (BANK_ACCOUNTS - 1)) % BANK_ACCOUNTS;
    transfer.letter_size = (size_t)(n % 8 == 0 ? 1000 + hash % 12000 : 16 + hash % 400);
    return transfer;
}

static void letter_fill(const struct transfer *transfer, unsigned char *bytes) {
    struct random random;
    random_seed(&random, transfer->hash);
    random_fill(&random, bytes, transfer->letter_size);
}

static uint64_t chain_next(uint64_t chain, unsigned teller, uint64_t n) {
    struct transfer transfer = transfer_of(teller, n);
    uint64_t words[] = {chain, teller, n, transfer.from, transfer.to, transfer.amount};
    return hash_bytes(7, words, sizeof(words));
}

static shelf_addr account_address(const struct bank *bank, uint64_t account) {
    return bank->accounts + account * sizeof(uint64_t);
}

static shelf_addr ledger_address(const struct bank *bank, unsigned teller) {
    return bank->ledgers + teller * sizeof(struct bank_ledger);
}

static uint64_t root_layout(void) {
    return SHELF_LAYOUT(struct root, SHELF_FIELD(struct root, accounts), SHELF_FIELD(struct root, ledgers),
                        SHELF_FIELD(struct root, counter));
}

// ---- Set-up -----------------------------------------------------------------------------------------------

static shelf_result accounts_make(shelf_tx *tx, shelf_region region, struct root *root) {
    uint64_t balances[BANK_ACCOUNTS];
    for (unsigned i = 0; i < BANK_ACCOUNTS; i++) {
        balances[i] = BANK_START;
    }
    struct bank_ledger ledgers[BOOK_TELLERS_MAX] = {0};
    uint64_t zeros[8] = {0};
    TRY(shelf_alloc(tx, region, sizeof(balances), &root->accounts));
    TRY(shelf_alloc(tx, region, sizeof(ledgers), &root->ledgers));
    TRY(shelf_alloc(tx, region, sizeof(zeros), &root->counter));
    TRY(shelf_write(tx, root->accounts, balances, sizeof(balances)));
    TRY(shelf_write(tx, root->ledgers, ledgers, sizeof(ledgers)));
    return shelf_write(tx, root->counter, zeros, sizeof(zeros));
}

// The first transaction of the region: all of the bank or nothing.
static shelf_result bank_make(shelf_tx *tx, void *context) {
    struct bank *bank = context;
    struct root root;
    struct shelf_root named = {.name = "bank", .type = ROOT_TYPE, .layout = root_layout()};
    TRY(shelf_format(tx, bank->region));
    TRY(accounts_make(tx, bank->region, &root));
    TRY(shelf_alloc(tx, bank->region, sizeof(root), &named.address));
    TRY(shelf_write(tx, named.address, &root, sizeof(root)));
    TRY(shelf_root_set(tx, bank->region, &named));
    TRY(shelf_map_create(tx, bank->region, "letters", &bank->letters));
    struct shelf_stream_options options = {.bytes_max = JOURNAL_BYTES};
    return shelf_stream_create(tx, bank->region, "journal", &options, &bank->journal);
}

static shelf_result bank_find(shelf_tx *tx, void *context) {
    struct bank *bank = context;
    unsigned char head[SHELF_LINE_SIZE];
    static const unsigned char zeros[SHELF_LINE_SIZE];
    bank->ready = false;
    TRY(shelf_read(tx, shelf_addr_make(bank->region, 0), head, sizeof(head)));
    if (memcmp(head, zeros, sizeof(head)) == 0) {
        return SHELF_OK; // created, but not formatted yet
    }
    shelf_addr address;
    struct root root;
    TRY(shelf_root_get(tx, bank->region, "bank", ROOT_TYPE, root_layout(), &address));
    TRY(shelf_read(tx, address, &root, sizeof(root)));
    TRY(shelf_map_open(tx, bank->region, "letters", &bank->letters));
    TRY(shelf_stream_open(tx, bank->region, "journal", &bank->journal));
    bank->accounts = root.accounts;
    bank->ledgers = root.ledgers;
    bank->counter = root.counter;
    bank->ready = true;
    return SHELF_OK;
}

shelf_result bank_open(struct bank *bank, bool create) {
    bank->ready = false;
    shelf_result result = shelf_region_open(bank->s, "bank", &bank->region);
    if (result == SHELF_NOT_FOUND) {
        if (!create) {
            return SHELF_OK;
        }
        result = shelf_region_create(bank->s, "bank", REGION_SIZE, REGION_SIZE_MAX, &bank->region);
    }
    TRY(result);
    TRY(shelf_run(bank->s, SHELF_READ_ONLY, bank_find, bank, 0, NULL));
    if (!bank->ready && create) {
        TRY(shelf_run(bank->s, SHELF_READ_WRITE, bank_make, bank, 0, NULL));
        TRY(shelf_run(bank->s, SHELF_READ_ONLY, bank_find, bank, 0, NULL));
        book_note(bank->book, "bank");
    }
    return SHELF_OK;
}

void bank_close(struct bank *bank) {
    for (unsigned t = 0; t < BOOK_TELLERS_MAX; t++) {
        shelf_session_close(bank->sessions[t]);
        bank->sessions[t] = NULL;
    }
}

// ---- Transfers --------------------------------------------------------------------------------------------

static shelf_result money_move(shelf_tx *tx, const struct bank *bank, const struct transfer *transfer) {
    uint64_t from;
    uint64_t to;
    TRY(shelf_read(tx, account_address(bank, transfer->from), &from, sizeof(from)));
    TRY(shelf_read(tx, account_address(bank, transfer->to), &to, sizeof(to)));
    from -= transfer->amount;
    to += transfer->amount;
    TRY(shelf_write(tx, account_address(bank, transfer->from), &from, sizeof(from)));
    return shelf_write(tx, account_address(bank, transfer->to), &to, sizeof(to));
}

static shelf_result letter_put(shelf_tx *tx, const struct bank *bank, const struct transfer *transfer,
                               unsigned teller, uint64_t n) {
    unsigned char bytes[LETTER_MAX];
    struct letter_key key = {.teller = teller, .n = n};
    letter_fill(transfer, bytes);
    TRY(shelf_map_put(tx, bank->letters, &key, sizeof(key), bytes, transfer->letter_size));
    if (n > BANK_LETTERS) {
        key.n = n - BANK_LETTERS;
        return shelf_map_delete(tx, bank->letters, &key, sizeof(key));
    }
    return SHELF_OK;
}

static shelf_result transfer_body(shelf_tx *tx, const struct bank *bank, unsigned teller, uint64_t n,
                                  uint64_t sequence) {
    struct transfer transfer = transfer_of(teller, n);
    struct bank_ledger ledger;
    TRY(shelf_read(tx, ledger_address(bank, teller), &ledger, sizeof(ledger)));
    if (ledger.count + 1 != n) {
        fprintf(stderr, "check: teller %u is at %" PRIu64 " and not before %" PRIu64 "\n", teller,
                ledger.count, n);
        return SHELF_INVALID;
    }
    ledger.count = n;
    ledger.sequence = sequence;
    ledger.chain = chain_next(ledger.chain, teller, n);
    struct entry entry = {.teller = teller, .n = n, .chain = ledger.chain};
    TRY(money_move(tx, bank, &transfer));
    TRY(shelf_write(tx, ledger_address(bank, teller), &ledger, sizeof(ledger)));
    TRY(shelf_add(tx, bank->counter, 1));
    TRY(letter_put(tx, bank, &transfer, teller, n));
    return shelf_stream_append(tx, bank->journal, n, &entry, sizeof(entry), NULL);
}

static shelf_result transfer_try(struct bank *bank, unsigned teller, uint64_t n, uint64_t sequence,
                                 struct shelf_receipt *ret_receipt) {
    shelf_tx *tx = NULL;
    TRY(shelf_session_begin(bank->sessions[teller], SHELF_READ_WRITE, &tx));
    shelf_result result = shelf_tx_sequence_set(tx, sequence);
    if (result == SHELF_OK) {
        result = transfer_body(tx, bank, teller, n, sequence);
    }
    if (result != SHELF_OK) {
        shelf_abort(tx);
        return result;
    }
    return shelf_commit(tx, ret_receipt);
}

shelf_result bank_transfer(struct bank *bank, unsigned teller, uint64_t n, uint64_t sequence,
                           struct shelf_receipt *ret_receipt) {
    shelf_result result = SHELF_CONFLICT;
    for (unsigned i = 0; i < REPEATS_MAX && result == SHELF_CONFLICT; i++) {
        if (i > 0) {
            sched_yield();
        }
        result = transfer_try(bank, teller, n, sequence, ret_receipt);
    }
    return result;
}

shelf_result bank_wait(struct bank *bank, uint32_t timeout_ms) {
    return shelf_wait(bank->s, bank->counter, sizeof(uint64_t), shelf_applied(bank->s), timeout_ms);
}

// ---- Reading ----------------------------------------------------------------------------------------------

struct reading {
    struct bank *bank;
    uint64_t balances[BANK_ACCOUNTS];
    struct bank_ledger ledgers[BOOK_TELLERS_MAX];
    uint64_t counter;
};

static shelf_result reading_body(shelf_tx *tx, void *context) {
    struct reading *reading = context;
    const struct bank *bank = reading->bank;
    TRY(shelf_read(tx, bank->accounts, reading->balances, sizeof(reading->balances)));
    TRY(shelf_read(tx, bank->ledgers, reading->ledgers, sizeof(reading->ledgers)));
    return shelf_read(tx, bank->counter, &reading->counter, sizeof(reading->counter));
}

shelf_result bank_ledger_get(struct bank *bank, unsigned teller, struct bank_ledger *ret_ledger) {
    struct reading reading = {.bank = bank};
    TRY(shelf_run(bank->s, SHELF_READ_ONLY, reading_body, &reading, 0, NULL));
    *ret_ledger = reading.ledgers[teller];
    return SHELF_OK;
}

shelf_result bank_sum(struct bank *bank, uint64_t *ret_sum) {
    struct reading reading = {.bank = bank};
    TRY(shelf_run(bank->s, SHELF_READ_ONLY, reading_body, &reading, 0, NULL));
    uint64_t sum = 0;
    for (unsigned i = 0; i < BANK_ACCOUNTS; i++) {
        sum += reading.balances[i];
    }
    *ret_sum = sum;
    return SHELF_OK;
}

void bank_view_begin(struct bank_view *view) {
    *view = (struct bank_view){0};
    for (unsigned i = 0; i < BANK_ACCOUNTS; i++) {
        view->balances[i] = BANK_START;
    }
}

static bool view_differs(const char *what, uint64_t number, uint64_t is, uint64_t expected) {
    fprintf(stderr, "check: %s %" PRIu64 ": %" PRIu64 " and not %" PRIu64 "\n", what, number, is, expected);
    return false;
}

static bool view_advance(struct bank_view *view, const struct reading *reading) {
    uint64_t sum = 0;
    uint64_t count = 0;
    for (unsigned t = 0; t < BOOK_TELLERS_MAX; t++) {
        uint64_t now = reading->ledgers[t].count;
        if (now < view->counts[t]) {
            return view_differs("back in time, teller", t, now, view->counts[t]);
        }
        for (uint64_t n = view->counts[t] + 1; n <= now; n++) {
            struct transfer transfer = transfer_of(t, n);
            view->balances[transfer.from] -= transfer.amount;
            view->balances[transfer.to] += transfer.amount;
        }
        view->counts[t] = now;
        count += now;
    }
    for (unsigned i = 0; i < BANK_ACCOUNTS; i++) {
        sum += reading->balances[i];
        if (reading->balances[i] != view->balances[i]) {
            return view_differs("account", i, reading->balances[i], view->balances[i]);
        }
    }
    if (sum != (uint64_t)BANK_ACCOUNTS * BANK_START) {
        return view_differs("sum of accounts", BANK_ACCOUNTS, sum, (uint64_t)BANK_ACCOUNTS * BANK_START);
    }
    return reading->counter == count || view_differs("counter of all transfers", 0, reading->counter, count);
}

shelf_result bank_view_next(struct bank *bank, struct bank_view *view) {
    struct reading reading = {.bank = bank};
    TRY(shelf_run(bank->s, SHELF_READ_ONLY, reading_body, &reading, 0, NULL));
    struct shelf_staleness staleness;
    TRY(shelf_staleness_get(bank->s, &staleness));
    if (!view_advance(view, &reading)) {
        return SHELF_INVALID;
    }
    if (staleness.index < view->index) {
        (void)view_differs("back in time, index", 0, staleness.index, view->index);
        return SHELF_INVALID;
    }
    view->index = staleness.index;
    return SHELF_OK;
}

// ---- Scratch regions --------------------------------------------------------------------------------------

#define SCRATCH_SECOND 32768u // offset of the second line of the pattern

struct scratch {
    shelf_region region;
    unsigned char lines[2][SHELF_LINE_SIZE];
};

static void scratch_pattern(uint64_t number, unsigned char lines[2][SHELF_LINE_SIZE]) {
    struct random random;
    random_seed(&random, number);
    random_fill(&random, lines, 2 * (size_t)SHELF_LINE_SIZE);
}

static shelf_result scratch_write(shelf_tx *tx, void *context) {
    struct scratch *scratch = context;
    TRY(shelf_write(tx, shelf_addr_make(scratch->region, 0), scratch->lines[0], SHELF_LINE_SIZE));
    return shelf_write(tx, shelf_addr_make(scratch->region, SCRATCH_SECOND), scratch->lines[1],
                       SHELF_LINE_SIZE);
}

static shelf_result scratch_read(shelf_tx *tx, void *context) {
    struct scratch *scratch = context;
    TRY(shelf_read(tx, shelf_addr_make(scratch->region, 0), scratch->lines[0], SHELF_LINE_SIZE));
    return shelf_read(tx, shelf_addr_make(scratch->region, SCRATCH_SECOND), scratch->lines[1],
                      SHELF_LINE_SIZE);
}

shelf_result bank_scratch_fill(struct bank *bank, shelf_region region, uint64_t number) {
    struct scratch scratch = {.region = region};
    scratch_pattern(number, scratch.lines);
    return shelf_run(bank->s, SHELF_READ_WRITE, scratch_write, &scratch, 0, NULL);
}

void bank_scratch_name(uint64_t number, char name[SHELF_NAME_MAX + 1]) {
    snprintf(name, SHELF_NAME_MAX + 1, "scratch-%" PRIu64, number);
}

static bool scratch_content_check(struct bank *bank, shelf_region region, uint64_t number) {
    const struct book_scratch *known = &bank->book->scratch[number];
    struct scratch scratch = {.region = region};
    unsigned char pattern[2][SHELF_LINE_SIZE];
    static const unsigned char zeros[2][SHELF_LINE_SIZE];
    scratch_pattern(number, pattern);
    EXPECT_OK(shelf_run(bank->s, SHELF_READ_ONLY, scratch_read, &scratch, 0, NULL),
              "reading a scratch region");
    bool filled = memcmp(scratch.lines, pattern, sizeof(pattern)) == 0;
    bool empty = memcmp(scratch.lines, zeros, sizeof(zeros)) == 0;
    EXPECT(filled ? known->filled != BOOK_NO : empty && known->filled != BOOK_YES,
           "scratch-%" PRIu64 " is %s, but was %s", number,
           filled  ? "filled"
           : empty ? "empty"
                   : "damaged",
           known->filled == BOOK_YES ? "filled" : "not filled");
    return true;
}

static bool scratch_check(struct bank *bank, const struct shelf_region_info *info, bool *seen) {
    uint64_t number = 0;
    EXPECT(sscanf(info->name, "scratch-%" SCNu64, &number) == 1 && number < BOOK_SCRATCH_MAX,
           "region \"%s\" was never made", info->name);
    const struct book_scratch *known = &bank->book->scratch[number];
    EXPECT(known->exists != BOOK_NO, "%s was never created, or was dropped", info->name);
    EXPECT(info->size >= known->size_acked && info->size <= known->size_submitted,
           "%s has %" PRIu64 " bytes and not %" PRIu64 " to %" PRIu64, info->name, info->size,
           known->size_acked, known->size_submitted);
    seen[number] = true;
    return scratch_content_check(bank, info->region, number);
}

// What may be is settled by what is.
static void scratch_settle(struct bank *bank, const struct shelf_region_info *infos, size_t count) {
    static bool seen[BOOK_SCRATCH_MAX];
    memset(seen, 0, sizeof(seen));
    for (size_t i = 0; i < count; i++) {
        uint64_t number = 0;
        if (sscanf(infos[i].name, "scratch-%" SCNu64, &number) == 1) {
            seen[number] = true;
            book_note(bank->book, "created %" PRIu64 " %" PRIu64, number, infos[i].size);
        }
    }
    for (uint64_t number = 0; number < BOOK_SCRATCH_MAX; number++) {
        if (!seen[number] && bank->book->scratch[number].exists != BOOK_NO) {
            book_note(bank->book, "dropped %" PRIu64, number);
        }
    }
}

#define REGIONS_MAX 64u

static bool regions_check(struct bank *bank, bool settle) {
    static bool seen[BOOK_SCRATCH_MAX];
    memset(seen, 0, sizeof(seen));
    struct shelf_region_info infos[REGIONS_MAX];
    size_t count = 0;
    EXPECT_OK(shelf_region_list(bank->s, infos, REGIONS_MAX, &count), "listing the regions");
    EXPECT(count <= REGIONS_MAX, "there are %zu regions", count);
    for (size_t i = 0; i < count; i++) {
        bool scratch = strcmp(infos[i].name, "bank") != 0 && strcmp(infos[i].name, "hoard") != 0;
        if (scratch && !scratch_check(bank, &infos[i], seen)) {
            return false;
        }
    }
    for (uint64_t number = 0; number < BOOK_SCRATCH_MAX; number++) {
        const struct book_scratch *known = &bank->book->scratch[number];
        EXPECT(known->exists != BOOK_YES || known->dropping || seen[number], "scratch-%" PRIu64 " is gone",
               number);
    }
    if (settle) {
        scratch_settle(bank, infos, count);
    }
    return true;
}

// ---- Checking ---------------------------------------------------------------------------------------------

// What the book knows of it. In a shared bank it knows of our tellers only.
static bool ledger_book_check(struct bank *bank, unsigned t, const struct bank_ledger *ledger) {
    const struct book_teller *known = &bank->book->tellers[t];
    if (bank->shared && (t < bank->first || t >= bank->first + bank->tellers)) {
        return true;
    }
    EXPECT(ledger->count >= known->acked,
           "teller %u: %" PRIu64 " transfers are there, %" PRIu64 " were acknowledged", t, ledger->count,
           known->acked);
    EXPECT(ledger->count <= known->submitted,
           "teller %u: %" PRIu64 " transfers are there, %" PRIu64 " were submitted", t, ledger->count,
           known->submitted);
    if (ledger->count > 0) {
        bool acked = ledger->count == known->acked;
        uint64_t first = acked ? known->acked_sequence : known->submitted_first;
        uint64_t last = acked ? known->acked_sequence : known->submitted_sequence;
        EXPECT(ledger->sequence >= first && ledger->sequence <= last,
               "teller %u: the ledger says sequence %" PRIu64 ", not %" PRIu64 " to %" PRIu64, t,
               ledger->sequence, first, last);
        EXPECT(!book_dead(bank->book, t, ledger->sequence),
               "teller %u: sequence %" PRIu64 " had no effect, it was said", t, ledger->sequence);
    }
    return true;
}

static bool ledger_check(struct bank *bank, unsigned t, const struct bank_ledger *ledger) {
    if (!ledger_book_check(bank, t, ledger)) {
        return false;
    }
    uint64_t chain = 0;
    for (uint64_t n = 1; n <= ledger->count; n++) {
        chain = chain_next(chain, t, n);
    }
    EXPECT(ledger->chain == chain, "teller %u: the chain of %" PRIu64 " transfers is broken", t,
           ledger->count);
    return true;
}

static bool balances_check(const struct reading *reading) {
    uint64_t balances[BANK_ACCOUNTS];
    uint64_t count = 0;
    uint64_t sum = 0;
    for (unsigned i = 0; i < BANK_ACCOUNTS; i++) {
        balances[i] = BANK_START;
    }
    for (unsigned t = 0; t < BOOK_TELLERS_MAX; t++) {
        count += reading->ledgers[t].count;
        for (uint64_t n = 1; n <= reading->ledgers[t].count; n++) {
            struct transfer transfer = transfer_of(t, n);
            balances[transfer.from] -= transfer.amount;
            balances[transfer.to] += transfer.amount;
        }
    }
    for (unsigned i = 0; i < BANK_ACCOUNTS; i++) {
        sum += reading->balances[i];
        EXPECT(reading->balances[i] == balances[i], "account %u holds %" PRIu64 " and not %" PRIu64, i,
               reading->balances[i], balances[i]);
    }
    EXPECT(sum == (uint64_t)BANK_ACCOUNTS * BANK_START, "the accounts hold %" PRIu64 " in all", sum);
    EXPECT(reading->counter == count, "the counter says %" PRIu64 " transfers, the ledgers %" PRIu64,
           reading->counter, count);
    return true;
}

static bool letter_check(const struct reading *reading, const struct letter_key *key, size_t key_size,
                         const unsigned char *value, size_t value_size) {
    unsigned char expected[LETTER_MAX];
    EXPECT(key_size == sizeof(*key) && key->teller < BOOK_TELLERS_MAX, "a letter has a key that nobody made");
    uint64_t count = reading->ledgers[key->teller].count;
    EXPECT(key->n <= count && key->n > 0 && key->n + BANK_LETTERS > count,
           "letter %" PRIu64 " of teller %" PRIu64 " is there, who is at %" PRIu64, key->n, key->teller,
           count);
    struct transfer transfer = transfer_of((unsigned)key->teller, key->n);
    letter_fill(&transfer, expected);
    EXPECT(value_size == transfer.letter_size && memcmp(value, expected, value_size) == 0,
           "letter %" PRIu64 " of teller %" PRIu64 " is damaged", key->n, key->teller);
    return true;
}

static bool letters_check(shelf_tx *tx, const struct reading *reading) {
    struct shelf_map_cursor cursor = {0};
    uint64_t expected = 0;
    uint64_t found = 0;
    uint64_t count = 0;
    for (unsigned t = 0; t < BOOK_TELLERS_MAX; t++) {
        uint64_t n = reading->ledgers[t].count;
        expected += n < BANK_LETTERS ? n : BANK_LETTERS;
    }
    EXPECT_OK(shelf_map_verify(tx, reading->bank->letters), "verifying the map");
    EXPECT_OK(shelf_map_count(tx, reading->bank->letters, &count), "counting the letters");
    for (;;) {
        struct letter_key key;
        size_t key_size;
        size_t value_size;
        unsigned char value[LETTER_MAX];
        shelf_result result = shelf_map_next(tx, reading->bank->letters, &cursor, &key, sizeof(key),
                                             &key_size, value, sizeof(value), &value_size);
        if (result == SHELF_NOT_FOUND) {
            break;
        }
        EXPECT_OK(result, "walking the letters");
        if (!letter_check(reading, &key, key_size, value, value_size)) {
            return false;
        }
        found++;
    }
    EXPECT(found == expected && count == expected,
           "there are %" PRIu64 " letters, the map says %" PRIu64 ", expected are %" PRIu64, found, count,
           expected);
    return true;
}

static bool journal_check(shelf_tx *tx, const struct reading *reading) {
    uint64_t first = 0;
    uint64_t next = 0;
    uint64_t at[BOOK_TELLERS_MAX] = {0};
    EXPECT_OK(shelf_stream_verify(tx, reading->bank->journal), "verifying the stream");
    EXPECT_OK(shelf_stream_bounds(tx, reading->bank->journal, &first, &next), "bounds of the journal");
    EXPECT(next == reading->counter, "the journal ends at %" PRIu64 " after %" PRIu64 " transfers", next,
           reading->counter);
    for (uint64_t position = first; position < next; position++) {
        struct entry entry;
        size_t size = 0;
        EXPECT_OK(shelf_stream_read(tx, reading->bank->journal, position, &entry, sizeof(entry), &size, NULL),
                  "reading the journal");
        EXPECT(size == sizeof(entry) && entry.teller < BOOK_TELLERS_MAX, "journal: bad record at %" PRIu64,
               position);
        uint64_t *last = &at[entry.teller];
        EXPECT(*last == 0 ? entry.n > 0 : entry.n == *last + 1,
               "journal: teller %" PRIu64 " goes from %" PRIu64 " to %" PRIu64, entry.teller, *last, entry.n);
        *last = entry.n;
    }
    for (unsigned t = 0; t < BOOK_TELLERS_MAX; t++) {
        EXPECT(at[t] == reading->ledgers[t].count || (at[t] == 0 && first > 0),
               "journal: teller %u ends at %" PRIu64 " and not %" PRIu64, t, at[t],
               reading->ledgers[t].count);
    }
    return true;
}

static bool structures_check(shelf_tx *tx, const struct reading *reading) {
    struct shelf_alloc_sums audit;
    EXPECT_OK(shelf_alloc_audit(tx, reading->bank->region, &audit), "auditing the allocator");
    EXPECT(audit.live + audit.free + audit.overhead == audit.total,
           "the allocator's parts are not its whole");
    return letters_check(tx, reading) && journal_check(tx, reading);
}

bool bank_check(struct bank *bank) {
    EXPECT(bank->ready || !bank->book->bank, "the bank is gone");
    if (!bank->shared && !regions_check(bank, false)) {
        return false;
    }
    if (!bank->ready) {
        return true;
    }
    struct reading reading = {.bank = bank};
    EXPECT_OK(shelf_run(bank->s, SHELF_READ_ONLY, reading_body, &reading, 0, NULL), "reading the accounts");
    for (unsigned t = 0; t < BOOK_TELLERS_MAX; t++) {
        if (!ledger_check(bank, t, &reading.ledgers[t])) {
            return false;
        }
    }
    if (!balances_check(&reading)) {
        return false;
    }
    if (bank->shared) { // to read the rest takes too long while others change it
        return true;
    }
    shelf_tx *tx = NULL;
    EXPECT_OK(shelf_begin(bank->s, SHELF_READ_ONLY, &tx), "beginning to read");
    bool good = structures_check(tx, &reading);
    shelf_abort(tx);
    return good;
}

// ---- Sessions ---------------------------------------------------------------------------------------------

// Commits a change of account 0 under a sequence that must not have an effect any more.
static shelf_result forbidden_try(struct bank *bank, unsigned t, uint64_t sequence,
                                  struct shelf_receipt *ret_receipt) {
    shelf_tx *tx = NULL;
    uint64_t wrong = 1;
    TRY(shelf_session_begin(bank->sessions[t], SHELF_READ_WRITE, &tx));
    shelf_result result = shelf_tx_sequence_set(tx, sequence);
    if (result == SHELF_OK) {
        result = shelf_write(tx, account_address(bank, 0), &wrong, sizeof(wrong));
    }
    if (result != SHELF_OK) {
        shelf_abort(tx);
        return result;
    }
    return shelf_commit(tx, ret_receipt);
}

// CONFLICT: of a shared bank, the node went before the region was mapped.
static shelf_result forbidden_commit(struct bank *bank, unsigned t, uint64_t sequence,
                                     struct shelf_receipt *ret_receipt) {
    shelf_result result = SHELF_CONFLICT;
    for (unsigned i = 0; i < (bank->shared ? REPEATS_MAX : 1) && result == SHELF_CONFLICT; i++) {
        result = forbidden_try(bank, t, sequence, ret_receipt);
    }
    return result;
}

static bool committed_check(struct bank *bank, unsigned t, uint64_t last) {
    const struct book_teller *known = &bank->book->tellers[t];
    struct shelf_receipt receipt = {0};
    struct shelf_receipt again = {0};
    EXPECT_OK(shelf_session_outcome(bank->sessions[t], last, &receipt), "outcome of the last transfer");
    EXPECT(receipt.sequence == last, "teller %u: the receipt of %" PRIu64 " is that of %" PRIu64, t, last,
           receipt.sequence);
    bool index_known = known->acked_sequence == last && known->acked_index != 0;
    EXPECT(!index_known || receipt.index == known->acked_index,
           "teller %u: %" PRIu64 " was acknowledged at index %" PRIu64 ", the receipt says %" PRIu64, t, last,
           known->acked_index, receipt.index);
    EXPECT_OK(forbidden_commit(bank, t, last, &again), "repeating a committed sequence");
    EXPECT(again.replayed && again.index == receipt.index,
           "teller %u: repeating %" PRIu64 " was not a replay", t, last);
    return true;
}

static bool aborted_check(struct bank *bank, unsigned t, uint64_t sequence) {
    struct shelf_receipt receipt = {0};
    shelf_result result = shelf_session_outcome(bank->sessions[t], sequence, &receipt);
    refusal_note(result);
    EXPECT(result == SHELF_ABORTED, "teller %u: outcome of %" PRIu64 ", which has no effect: %s", t, sequence,
           shelf_result_name(result));
    result = forbidden_commit(bank, t, sequence, &receipt);
    refusal_note(result);
    EXPECT(result == SHELF_ABORTED, "teller %u: commit under the fenced %" PRIu64 ": %s", t, sequence,
           shelf_result_name(result));
    return true;
}

// The newest transfer, whose outcome nobody knows, once more under its sequence. If it is there already it does no harm.
static bool teller_resend(struct bank *bank, unsigned t, struct bank_ledger *ledger) {
    const struct book_teller *known = &bank->book->tellers[t];
    uint64_t n = known->submitted;
    uint64_t sequence = known->submitted_sequence;
    if (n != ledger->count + 1 || book_dead(bank->book, t, sequence)) {
        return true;
    }
    struct shelf_receipt receipt = {0};
    shelf_result result = bank_transfer(bank, t, n, sequence, &receipt);
    if (result == SHELF_ABORTED) { // a life that was killed right then had asked for it: settled as that
        return true;
    }
    EXPECT_OK(result, "submitting again what was in flight");
    EXPECT_OK(bank_ledger_get(bank, t, ledger), "reading a ledger");
    EXPECT(ledger->count == n && ledger->sequence == sequence && receipt.sequence == sequence,
           "teller %u: submitting %" PRIu64 " again led to %" PRIu64 " under %" PRIu64, t, n, ledger->count,
           ledger->sequence);
    return true;
}

static bool teller_settle(struct bank *bank, unsigned t) {
    const struct book_teller *known = &bank->book->tellers[t];
    struct bank_ledger ledger = {0};
    char name[SHELF_NAME_MAX + 1];
    snprintf(name, sizeof(name), "teller-%u", t);
    shelf_session_close(bank->sessions[t]);
    bank->sessions[t] = NULL;
    // First the session: what an earlier holder has in flight comes before that, or never.
    EXPECT_OK(shelf_session_open(bank->s, name, &bank->sessions[t]), "opening a session");
    EXPECT_OK(bank_ledger_get(bank, t, &ledger), "reading a ledger");
    uint64_t last = shelf_session_last(bank->sessions[t]);
    bool fenced = last > ledger.sequence && last <= known->sequence_max;
    EXPECT(last == ledger.sequence || fenced, "%s: the session is at %" PRIu64 ", the ledger at %" PRIu64,
           name, last, ledger.sequence);
    if (bank->resend && !teller_resend(bank, t, &ledger)) {
        return false;
    }
    last = shelf_session_last(bank->sessions[t]);
    if (ledger.sequence > 0 && !committed_check(bank, t, ledger.sequence)) {
        return false;
    }
    for (size_t i = 0; i < known->dead_count; i++) {
        bool remembered = known->dead[i] + SHELF_SESSION_WINDOW / 2 > last;
        if (remembered && !aborted_check(bank, t, known->dead[i])) {
            return false;
        }
    }
    for (uint64_t sequence = known->submitted_first; sequence <= known->submitted_sequence; sequence++) {
        if (sequence == ledger.sequence || known->submitted == 0 || book_dead(bank->book, t, sequence)) {
            continue;
        }
        if (!aborted_check(bank, t, sequence)) {
            return false;
        }
        book_note(bank->book, "dead %u %" PRIu64, t, sequence);
    }
    if (ledger.count > known->acked) {
        book_note(bank->book, "ack %u %" PRIu64 " %" PRIu64 " 0", t, ledger.count, ledger.sequence);
    }
    return true;
}

bool bank_settle(struct bank *bank) {
    for (unsigned t = bank->first; t < bank->first + bank->tellers; t++) {
        if (!teller_settle(bank, t)) {
            return false;
        }
    }
    return (bank->shared || regions_check(bank, true)) && bank_check(bank);
}
