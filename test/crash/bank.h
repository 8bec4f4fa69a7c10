// SPDX-License-Identifier: Apache-2.0
//
// The bank: what the worker of the crash tests does to a store, made so that a checker can compute what must be there.
//
// In the region "bank": 1000 accounts; for each teller a ledger line; a counter of all transfers; the map "letters" with
// the newest letters of each teller; the stream "journal". Transfer n of teller t is a function of t and n alone. In one
// transaction under the teller's session it moves money, enters (n, sequence, chained hash) into the ledger, adds 1 to
// the counter, puts letter n, deletes letter n - BANK_LETTERS, and appends to the journal. So from the ledgers alone
// follow all balances, letters, the counter and the journal's end, and the store is right only if each transfer up to
// the ledger's n had its effect exactly once.
//
// Beside it the regions "scratch-1", -2, ... are created, filled, grown and dropped.

#ifndef SHELF_CRASH_BANK_H
#define SHELF_CRASH_BANK_H

#include "book.h"
#include "shelf.h"

#define BANK_ACCOUNTS 1000u
#define BANK_START    1000u // money in each account at the beginning
#define BANK_LETTERS  32u   // letters kept of a teller

struct bank_ledger {   // one line
    uint64_t count;    // transfers of this teller
    uint64_t sequence; // of the newest
    uint64_t chain;    // hash over all of them
    uint64_t reserved[5];
};

struct bank {
    shelf *s;                // owned by the caller
    struct book *book;       // owned by the caller
    unsigned first, tellers; // ours
    bool shared;             // other processes work with the rest at the same time
    bool resend;             // what was in flight is submitted again, not asked for
    bool ready;              // it exists, and the rest is set
    shelf_region region;
    shelf_addr accounts, ledgers, counter;
    shelf_map letters;
    shelf_stream journal;
    shelf_session *sessions[BOOK_TELLERS_MAX]; // owned; set by bank_settle
};

// Finds the bank; `ready` says whether there is one. With `create` it is made.
shelf_result bank_open(struct bank *bank, bool create);
void bank_close(struct bank *bank);

shelf_result bank_ledger_get(struct bank *bank, unsigned teller, struct bank_ledger *ret_ledger);

// One transfer, repeated while others get in its way.
shelf_result bank_transfer(struct bank *bank, unsigned teller, uint64_t n, uint64_t sequence,
                           struct shelf_receipt *ret_receipt);

// Sleeps until somebody has made a transfer, or the time is over: OK, TIMEOUT.
shelf_result bank_wait(struct bank *bank, uint32_t timeout_ms);

// Reads all balances: whether reading works.
shelf_result bank_sum(struct bank *bank, uint64_t *ret_sum);

// The pattern of a scratch region, in one transaction.
shelf_result bank_scratch_fill(struct bank *bank, shelf_region region, uint64_t number);
void bank_scratch_name(uint64_t number, char name[SHELF_NAME_MAX + 1]);

// What a reader has seen so far, and what must be there as far as it knows.
struct bank_view {
    uint64_t counts[BOOK_TELLERS_MAX];
    uint64_t balances[BANK_ACCOUNTS];
    uint64_t index;
};
void bank_view_begin(struct bank_view *view);

// Reads everything in one transaction and compares each account with what follows from the ledgers; nothing may be older
// than what the view has seen before. OK; INVALID, and a message: a difference; else what kept it from reading.
shelf_result bank_view_next(struct bank *bank, struct bank_view *view);

// Compares the store with the book; of what is shared, the accounts and our ledgers. False, and a message on stderr, on the
// first difference.
bool bank_check(struct bank *bank);

// What kept bank_check or bank_settle from its end if it was no difference: a disk that failed or is full, a node that has
// gone; else OK. It is forgotten when it was asked for.
shelf_result bank_check_refusal(void);

// Opens our tellers' sessions and settles what was in flight; checks that outcomes are what the ledger says, stay so,
// and that a repeated or fenced sequence has no effect. Enters what was found into the book. May be done again.
bool bank_settle(struct bank *bank);

#endif
