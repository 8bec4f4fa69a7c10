// SPDX-License-Identifier: Apache-2.0
//
// Readers and a writer on one image, without a node in between: nothing torn, nothing fractured. The writer follows the
// protocol of wire/image.h in a tight loop; each record moves an amount from some lines to others, so that the sum over
// all lines is the same at every index, and each line repeats its amount in all of its words.

#include <pthread.h>
#include <sched.h>

#include "base/random.h"
#include "tx_bed.h"

enum {
    LINES = 24,
    READERS = 2,
    BED_SIZE = 1 << 20,
#ifdef SHARED_THREAD_SANITIZER
    LINES_READ_MIN = 500000, /* a reader, in all */
#else
    LINES_READ_MIN = 12000000,
#endif
};
static const uint64_t start_amount = 1000000;

struct bank {
    struct tx_bed *bed;
    _Atomic uint32_t readers_left;
    uint64_t records;
};

struct reader {
    struct bank *bank;
    uint64_t seed;
    bool views;
    uint64_t lines, complete, conflicts, torn, fractured;
};

/* Lines lie a page and a bit apart, half of them in each region, some across from one another. */
static shelf_addr line_address(uint32_t i) {
    return shelf_addr_make(i % 2 ? BED_REGION_B : BED_REGION_A, (uint64_t)i * (4096 + LINE_SIZE));
}

static void amount_store(struct tx_bed *bed, uint32_t i, uint64_t amount) {
    for (uint64_t at = 0; at < LINE_SIZE; at += 8)
        bed_word_store(bed, line_address(i) + at, amount);
}

static void record_write(struct tx_bed *bed, struct random *random, uint64_t *amounts) {
    uint64_t index = bed_next(bed);
    for (uint64_t moves = random_below(random, 3) + 1; moves > 0; moves--) {
        uint32_t from = (uint32_t)random_below(random, LINES), to = (uint32_t)random_below(random, LINES);
        uint64_t amount = random_below(random, 100);
        amounts[from] -= amount;
        amounts[to] += amount;
        bed_line_begin(bed, line_address(from), index);
        amount_store(bed, from, amounts[from]);
        bed_line_end(bed, line_address(from), index);
        bed_line_begin(bed, line_address(to), index);
        amount_store(bed, to, amounts[to]);
        bed_line_end(bed, line_address(to), index);
    }
    bed_applied(bed, index);
}

static void *writer_main(void *argument) {
    struct bank *bank = argument;
    struct random random;
    random_seed(&random, 1);
    uint64_t amounts[LINES];
    for (uint32_t i = 0; i < LINES; i++)
        amounts[i] = start_amount;
    while (atomic_load(&bank->readers_left) > 0) {
        record_write(bank->bed, &random, amounts);
        bank->records++;
        /* Bursts, and gaps in which readers get through. */
        if (random_chance(&random, 1, 4)) {
            for (uint64_t spins = random_below(&random, 4000); spins > 0; spins--)
                atomic_signal_fence(memory_order_seq_cst);
        }
    }
    return NULL;
}

static void yield_on_wait(struct tx_bed *bed, uint32_t round) {
    (void)bed;
    if (round > 100)
        sched_yield();
}

/* By copy, in one piece or word by word. */
static shelf_result amount_read(struct reader *reader, struct random *random, struct shelf_tx *tx, uint32_t i,
                                uint64_t *words) {
    if (random_chance(random, 1, 2))
        return shelf_read(tx, line_address(i), words, LINE_SIZE);
    for (uint64_t at = 0; at < LINE_SIZE; at += 8) {
        shelf_result result = shelf_read(tx, line_address(i) + at, &words[at / 8], 8);
        if (result != SHELF_OK)
            return result;
    }
    (void)reader;
    return SHELF_OK;
}

/* Out of the memory itself; ThreadSanitizer is to see atomic loads, as a careful program might use. */
static shelf_result amount_view(struct shelf_tx *tx, uint32_t i, uint64_t *words) {
    const void *view;
    shelf_result result = shelf_view(tx, line_address(i), LINE_SIZE, &view);
    for (uint64_t word = 0; word < 8 && result == SHELF_OK; word++)
        words[word] = __atomic_load_n((const uint64_t *)view + word, __ATOMIC_RELAXED);
    return result;
}

/* One transaction over lines from a random one on; true: all of them were read. */
static bool lines_read(struct reader *reader, struct random *random, struct shelf_tx *tx) {
    uint32_t first = (uint32_t)random_below(random, LINES);
    uint64_t sum = 0;
    bool torn = false;
    shelf_result result = SHELF_OK;
    for (uint32_t i = 0; i < LINES && result == SHELF_OK; i++) {
        uint64_t words[8] = {0};
        uint32_t line = (first + i) % LINES;
        result = reader->views ? amount_view(tx, line, words) : amount_read(reader, random, tx, line, words);
        if (result != SHELF_OK)
            break;
        for (int word = 1; word < 8; word++)
            torn |= words[word] != words[0];
        sum += words[0];
        reader->lines++;
    }
    if (result == SHELF_OK && reader->views)
        result = shelf_check(tx);
    /* What views show is certain only once checked; what reads return, at once. */
    if (torn && (!reader->views || result == SHELF_OK))
        reader->torn++;
    if (result != SHELF_OK)
        return false;
    reader->fractured += sum != LINES * start_amount;
    return true;
}

static void *reader_main(void *argument) {
    struct reader *reader = argument;
    struct random random;
    random_seed(&random, reader->seed);
    while (reader->lines < LINES_READ_MIN || reader->complete == 0) {
        struct shelf_tx *tx;
        if (tx_begin(&reader->bank->bed->host, SHELF_READ_ONLY, &tx) != SHELF_OK)
            abort();
        if (lines_read(reader, &random, tx))
            reader->complete++;
        else
            reader->conflicts += tx_failed(tx) == SHELF_CONFLICT;
        tx_end(tx);
    }
    atomic_fetch_sub(&reader->bank->readers_left, 1);
    return NULL;
}

static void bank_run(bool views) {
    struct bank bank = {.bed = bed_make(BED_SIZE)};
    struct reader readers[READERS];
    pthread_t threads[READERS + 1];
    bank.bed->on_wait = yield_on_wait;
    for (uint32_t i = 0; i < LINES; i++)
        amount_store(bank.bed, i, start_amount);
    atomic_store(&bank.readers_left, READERS);
    for (int i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.bank = &bank, .seed = (uint64_t)i + 2, .views = views};
        assert_int_equal(pthread_create(&threads[i], NULL, reader_main, &readers[i]), 0);
    }
    assert_int_equal(pthread_create(&threads[READERS], NULL, writer_main, &bank), 0);
    for (int i = 0; i <= READERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    uint64_t complete = 0, conflicts = 0;
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(readers[i].torn, 0);
        assert_int_equal(readers[i].fractured, 0);
        complete += readers[i].complete;
        conflicts += readers[i].conflicts;
    }
    print_message("%llu records, %llu complete transactions, %llu conflicts, %llu waits\n",
                  (unsigned long long)bank.records, (unsigned long long)complete,
                  (unsigned long long)conflicts, (unsigned long long)atomic_load(&bank.bed->waits));
    assert_true(complete > 0 && conflicts > 0 && bank.records > 0);
    bed_free(bank.bed);
}

static void test_reads_under_a_writer_are_never_torn(void **state) {
    (void)state;
    bank_run(false);
}

static void test_checked_views_under_a_writer_are_never_torn(void **state) {
    (void)state;
    bank_run(true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_under_a_writer_are_never_torn),
        cmocka_unit_test(test_checked_views_under_a_writer_are_never_torn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
