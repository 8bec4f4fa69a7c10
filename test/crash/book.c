// SPDX-License-Identifier: Apache-2.0
//
// What is known of the store: one line of the marks after the other is entered, from this life or from earlier ones.

#include "book.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_SIZE 160

void book_init(struct book *book) {
    *book = (struct book){.marks = {-1, -1}, .scratch_next = 1};
    pthread_mutex_init(&book->lock, NULL);
}

void book_end(struct book *book) {
    for (unsigned i = 0; i < BOOK_TELLERS_MAX; i++) {
        free(book->tellers[i].dead);
    }
    for (unsigned i = 0; i < 2; i++) {
        if (book->marks[i] >= 0) {
            close(book->marks[i]);
        }
    }
    pthread_mutex_destroy(&book->lock);
}

// ---- Entering lines ---------------------------------------------------------------------------------------

static uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

static void dead_add(struct book_teller *teller, uint64_t sequence) {
    uint64_t *dead = reallocarray(teller->dead, teller->dead_count + 1, sizeof(uint64_t));
    if (dead == NULL) {
        fprintf(stderr, "book: no memory\n");
        exit(70);
    }
    dead[teller->dead_count++] = sequence;
    teller->dead = dead;
}

static bool teller_enter(struct book *book, const char *line) {
    unsigned t = 0;
    uint64_t n = 0;
    uint64_t sequence = 0;
    uint64_t index = 0;
    bool submit = sscanf(line, "submit %u %" SCNu64 " %" SCNu64, &t, &n, &sequence) == 3;
    bool ack = sscanf(line, "ack %u %" SCNu64 " %" SCNu64 " %" SCNu64, &t, &n, &sequence, &index) == 4;
    bool dead = sscanf(line, "dead %u %" SCNu64, &t, &sequence) == 2;
    if ((!submit && !ack && !dead) || t >= BOOK_TELLERS_MAX) {
        return false;
    }
    struct book_teller *teller = &book->tellers[t];
    teller->sequence_max = larger(teller->sequence_max, sequence);
    if (submit) {
        teller->submitted_first = n == teller->submitted ? teller->submitted_first : sequence;
        teller->submitted = n;
        teller->submitted_sequence = sequence;
    } else if (ack) {
        teller->acked = n;
        teller->acked_sequence = sequence;
        teller->acked_index = index;
    } else {
        dead_add(teller, sequence);
    }
    return true;
}

static void scratch_step(struct book_scratch *scratch, const char *step, uint64_t size) {
    if (strcmp(step, "creating") == 0) {
        *scratch = (struct book_scratch){.exists = BOOK_MAYBE, .size_acked = size, .size_submitted = size};
    } else if (strcmp(step, "created") == 0) {
        scratch->exists = BOOK_YES;
        scratch->size_acked = scratch->size_submitted = size;
    } else if (strcmp(step, "growing") == 0) {
        scratch->size_submitted = size;
    } else if (strcmp(step, "grown") == 0) {
        scratch->size_acked = scratch->size_submitted = size;
    } else if (strcmp(step, "filling") == 0) {
        scratch->filled = BOOK_MAYBE;
    } else if (strcmp(step, "filled") == 0) {
        scratch->filled = BOOK_YES;
    } else if (strcmp(step, "dropping") == 0) {
        scratch->dropping = true;
    } else if (strcmp(step, "dropped") == 0) {
        *scratch = (struct book_scratch){.exists = BOOK_NO};
    } else if (scratch->exists == BOOK_MAYBE) { // refused: creating
        scratch->exists = BOOK_NO;
    } else { // refused: growing
        scratch->size_submitted = scratch->size_acked;
    }
}

static bool scratch_enter(struct book *book, const char *line) {
    static const char *const steps[] = {"creating", "created",  "growing", "grown",  "filling",
                                        "filled",   "dropping", "dropped", "refused"};
    char step[16];
    uint64_t number = 0;
    uint64_t size = 0;
    if (sscanf(line, "%15s %" SCNu64 " %" SCNu64, step, &number, &size) < 2 || number >= BOOK_SCRATCH_MAX) {
        return false;
    }
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        if (strcmp(step, steps[i]) == 0) {
            scratch_step(&book->scratch[number], step, size);
            book->scratch_next = larger(book->scratch_next, number + 1);
            return true;
        }
    }
    return false;
}

static bool line_enter(struct book *book, const char *line) {
    if (strcmp(line, "open\n") == 0) {
        book->open = true;
        return true;
    }
    if (strcmp(line, "bank\n") == 0) {
        book->bank = true;
        return true;
    }
    if (strcmp(line, "full\n") == 0 || sscanf(line, "hoarding %" SCNu64, &book->hoard_submitted) == 1 ||
        sscanf(line, "hoarded %" SCNu64, &book->hoard_acked) == 1) {
        return true;
    }
    return teller_enter(book, line) || scratch_enter(book, line);
}

// ---- Files ------------------------------------------------------------------------------------------------

bool book_load(struct book *book, const char *path) {
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        if (errno != ENOENT) {
            fprintf(stderr, "book: cannot read %s: %s\n", path, strerror(errno));
        }
        return errno == ENOENT;
    }
    char line[LINE_SIZE];
    bool good = true;
    while (good && fgets(line, sizeof(line), file) != NULL) {
        good = line_enter(book, line);
        if (!good) {
            fprintf(stderr, "book: %s holds a line that means nothing: %s\n", path, line);
        }
    }
    fclose(file);
    return good;
}

bool book_mark_to(struct book *book, const char *path) {
    int *place = &book->marks[book->marks[0] >= 0];
    *place = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (*place < 0) {
        fprintf(stderr, "book: cannot write %s: %s\n", path, strerror(errno));
    }
    return *place >= 0;
}

void book_note(struct book *book, const char *format, ...) {
    char line[LINE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof(line) - 1, format, arguments);
    va_end(arguments);
    line[size++] = '\n';
    line[size] = 0;
    pthread_mutex_lock(&book->lock);
    bool good = line_enter(book, line);
    for (unsigned i = 2; good && i-- > 0;) { // B3
        good = book->marks[i] < 0 || write(book->marks[i], line, (size_t)size) == size;
    }
    pthread_mutex_unlock(&book->lock);
    if (!good) {
        fprintf(stderr, "book: cannot note: %s", line);
        exit(70);
    }
}

bool book_dead(struct book *book, unsigned teller, uint64_t sequence) {
    const struct book_teller *entry = &book->tellers[teller];
    for (size_t i = 0; i < entry->dead_count; i++) {
        if (entry->dead[i] == sequence) {
            return true;
        }
    }
    return false;
}
