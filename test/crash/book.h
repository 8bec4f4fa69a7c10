// SPDX-License-Identifier: Apache-2.0
//
// The book: what a crash test knows of a store from outside of it. The worker writes a line into a marks file before it
// asks for something and another once that was acknowledged; after the crash the lines say what the store must hold and
// what it may hold.
//
//   open                      the shelf is open: from now on it exists
//   bank                      the bank is set up
//   submit TELLER N SEQUENCE  transfer N is about to be committed under SEQUENCE
//   ack TELLER N SEQUENCE INDEX   it is committed (INDEX 0: not known)
//   dead TELLER SEQUENCE      SEQUENCE has had and will have no effect
//   creating NUMBER SIZE / created NUMBER SIZE      the region "scratch-NUMBER"
//   growing NUMBER SIZE / grown NUMBER SIZE
//   filling NUMBER / filled NUMBER                  its first and last line hold its pattern
//   dropping NUMBER / dropped NUMBER
//   refused NUMBER SIZE       creating or growing to SIZE has had no effect
//   hoarding N / hoarded N    record N of the hoard (hoard.h)
//   full                      the disk is full, the worker waits for space
//
// B1  A line is written whole, by one write, before the step that it announces or after the step that it reports.
// B2  acked <= in the store <= submitted, for every teller and region, at any moment at which the worker may end.
// B3  With two marks files, the second has every line that the first has: a later life goes by the first and assumes that
//     the second knows.

#ifndef SHELF_CRASH_BOOK_H
#define SHELF_CRASH_BOOK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOOK_TELLERS_MAX 8u
#define BOOK_SCRATCH_MAX 4096u

struct book_teller {
    uint64_t submitted; // the newest n, and the sequences that it was submitted under
    uint64_t submitted_first,
        submitted_sequence; // (all in between): more than one if some had no known outcome
    uint64_t acked, acked_sequence, acked_index;
    uint64_t sequence_max; // of all that were ever named
    uint64_t *dead;        // sequences; owned
    size_t dead_count;
};

enum book_certainty { BOOK_NO, BOOK_MAYBE, BOOK_YES };

struct book_scratch {
    enum book_certainty exists, filled;
    bool dropping; // while dropping, also what is certain may be gone
    uint64_t size_acked, size_submitted;
};

struct book {
    pthread_mutex_t lock; // guards all below
    int marks[2];         // where lines go; -1: nowhere
    bool open, bank;
    struct book_teller tellers[BOOK_TELLERS_MAX];
    struct book_scratch scratch[BOOK_SCRATCH_MAX];
    uint64_t scratch_next; // number of the next region to create
    uint64_t hoard_submitted, hoard_acked;
};

void book_init(struct book *book);
void book_end(struct book *book);

// Takes over the lines of an earlier worker; the file may not exist yet. False, and a message, if it cannot be read.
bool book_load(struct book *book, const char *path);

// Lines are appended to this file as well from now on.
bool book_mark_to(struct book *book, const char *path);

// Enters a line and appends it to the marks files. A line that cannot be written ends the program.
void book_note(struct book *book, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool book_dead(struct book *book, unsigned teller, uint64_t sequence);

#endif
