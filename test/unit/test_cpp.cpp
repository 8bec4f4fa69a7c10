// SPDX-License-Identifier: Apache-2.0
/*
 * shelf.hpp: every class of it, against a real shelf in a scratch directory. Compiled as C++17 and as C++20.
 */
#include "shelf.hpp"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <stdexcept>
#if __cplusplus >= 202002L
#include <span>
#endif

namespace {

/* ---- The frame ---------------------------------------------------------------------------------------------------- */

struct failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

void expect(bool condition, const char *text, int line) {
    if (!condition)
        throw failure("line " + std::to_string(line) + ": " + text);
}
#define EXPECT(condition) expect(static_cast<bool>(condition), #condition, __LINE__)

/* The call throws that result and no other. */
template <class Call> void expect_error(shelf_result wanted, Call &&call, int line) {
    try {
        call();
    } catch (const shelf::error &e) {
        if (e.result() != wanted)
            throw failure("line " + std::to_string(line) + ": " + e.what());
        return;
    }
    throw failure("line " + std::to_string(line) + ": nothing was thrown");
}
#define EXPECT_ERROR(result, ...) expect_error((result), [&] { __VA_ARGS__; }, __LINE__)

/* A directory that ends with the test. */
class scratch {
  public:
    scratch() {
        std::string path = (std::filesystem::temp_directory_path() / "shelf-cpp.XXXXXX").string();
        if (!mkdtemp(path.data()))
            throw failure("no scratch directory");
        path_ = path;
    }
    scratch(const scratch &) = delete;
    scratch &operator=(const scratch &) = delete;
    ~scratch() { std::filesystem::remove_all(path_); }
    std::string where() const { return "dir:" + path_ + "/shelf"; }

  private:
    std::string path_;
};

/* A fresh shelf with a formatted region. */
struct bed {
    scratch directory;
    shelf::store s{directory.where(), SHELF_OPEN_CREATE};
    shelf::region main = s.region_create("main", 4 << 20, 8 << 20);
    bed() {
        s.run([&](shelf::transaction &tx) { tx.format(main); });
    }
};

/* Whole pages of bytes without an allocator. */
struct plain_bed : bed {
    shelf::region words = s.region_create("words", 4096, 1 << 20);
    uint64_t word(uint64_t offset) {
        return s.read([&](shelf::transaction &tx) { return tx.read<uint64_t>(words.at(offset)); });
    }
    void set(uint64_t offset, uint64_t value) {
        s.run([&](shelf::transaction &tx) { tx.write(words.at(offset), value); });
    }
};

struct account {
    uint64_t owner;
    int64_t cents;
};

/* ---- Errors, bytes, names ----------------------------------------------------------------------------------------- */

void test_error_tells_what_happened() {
    bed b;
    EXPECT(!b.s.region_open("nowhere"));
    bool thrown = false;
    try {
        b.s.region_create("main", 4096);
    } catch (const std::exception &caught) {
        thrown = true;
        auto &e = dynamic_cast<const shelf::error &>(caught);
        EXPECT(e.result() == SHELF_EXISTS);
        EXPECT(std::string_view(e.detail()).size() > 0);
        EXPECT(e.what() == "EXISTS: " + std::string(e.detail()));
        EXPECT(e.sequence() == 0);
    }
    EXPECT(thrown);
    shelf::error plain(SHELF_TIMEOUT, "", 7);
    EXPECT(plain.what() == std::string("TIMEOUT: ") + shelf_result_text(SHELF_TIMEOUT));
    EXPECT(plain.detail() == std::string());
    EXPECT(plain.sequence() == 7);
}

void test_bytes_of_everything() {
    using shelf::bytes;
    const std::string text = "three";
    const std::vector<uint16_t> numbers{1, 2, 3};
    const account a{1, 2};
    const std::array<char, 3> letters{'a', 'b', 'c'};
    const int row[4] = {1, 2, 3, 4};
    EXPECT(bytes("three").size() == 5);
    EXPECT(bytes(text.c_str()).chars() == "three");
    EXPECT(bytes(text).data() == text.data());
    EXPECT(bytes(std::string_view("ab")).size() == 2);
    EXPECT(bytes(numbers).size() == 6);
    EXPECT(bytes(a).size() == sizeof(a) && bytes(a).data() == &a);
    EXPECT(bytes(letters).chars() == "abc");
    EXPECT(bytes(row).size() == sizeof(row));
    EXPECT(bytes(7u).as<unsigned>() == 7);
    EXPECT(bytes(bytes(text)).size() == 5);
    EXPECT_ERROR(SHELF_LAYOUT, (void)bytes("abc").as<int>());
#if __cplusplus >= 202002L
    EXPECT(bytes(std::span(numbers).first(2)).size() == 4);
    EXPECT(bytes(std::as_bytes(std::span(numbers))).size() == 6);
#endif
    static_assert(!std::is_constructible_v<bytes, int *>, "a pointer's bytes mean nothing");
    static_assert(!std::is_constructible_v<bytes, std::vector<std::string>>, "strings are not their bytes");
    static_assert(!std::is_constructible_v<bytes, std::vector<int *>>, "nor are pointers in a vector");
    static_assert(std::is_constructible_v<shelf::key, std::string>);
}

void test_names_are_checked() {
    bed b;
    EXPECT_ERROR(SHELF_INVALID, b.s.region_open(std::string_view("ma\0in", 5)));
    EXPECT_ERROR(SHELF_INVALID, b.s.region_create(std::string(SHELF_NAME_MAX + 1, 'x'), 4096));
    EXPECT_ERROR(SHELF_INVALID, b.s.region_create(std::string(5000, 'x'), 4096));
    EXPECT_ERROR(SHELF_INVALID, b.s.region_create("", 4096));
    b.s.region_create(std::string(SHELF_NAME_MAX, 'x'), 4096);
    EXPECT(b.s.region_open(std::string(SHELF_NAME_MAX, 'x')));
    EXPECT_ERROR(SHELF_INVALID, shelf::store(std::string("dir:/tmp\0/x", 11)));
}

/* ---- Store and region --------------------------------------------------------------------------------------------- */

void test_store_opens_and_reopens() {
    scratch d;
    EXPECT_ERROR(SHELF_NOT_FOUND, shelf::store(d.where()));
    EXPECT_ERROR(SHELF_INVALID, shelf::store("nowhere"));
    {
        shelf::options how(SHELF_OPEN_CREATE | SHELF_OPEN_EXCLUSIVE);
        how.log_bytes_max = 128 << 20;
        shelf::store s(d.where(), how);
        EXPECT_ERROR(SHELF_BUSY, shelf::store(d.where(), shelf::options(SHELF_OPEN_ALONE)));
        shelf::region r = s.region_create("r", 100);
        s.run([&](shelf::transaction &tx) { tx.write(r.at(8), account{1, -5}); });
        EXPECT(s.checkpoint() == s.applied());
        EXPECT(s.info().checkpoint == s.applied() && s.info().state == SHELF_OK);
        s.close();
        EXPECT(!s);
        EXPECT_ERROR(SHELF_INVALID, s.info());
        s.close();
    }
    EXPECT_ERROR(SHELF_EXISTS, shelf::store(d.where(), SHELF_OPEN_CREATE | SHELF_OPEN_EXCLUSIVE));
    shelf::store s(d.where());
    shelf::region r = s.region_open("r").value();
    EXPECT(s.read([&](shelf::transaction &tx) { return tx.read<account>(r.at(8)).cents; }) == -5);
}

void test_store_moves() {
    scratch d1, d2;
    shelf::store a(d1.where(), SHELF_OPEN_CREATE);
    shelf::region r = a.region_create("r", 4096);
    shelf::store b(std::move(a));
    EXPECT(!a && b);
    EXPECT(r.info().size == 4096); /* regions go on */
    shelf::store c(d2.where(), SHELF_OPEN_CREATE);
    c = std::move(b); /* closes what c was */
    EXPECT(!b && c.region_open("r"));
    shelf::store again(d2.where());
    static_assert(!std::is_copy_constructible_v<shelf::store>);
    static_assert(std::is_nothrow_move_constructible_v<shelf::store>);
}

void test_regions() {
    bed b;
    shelf::region r = b.s.region_create("other", 5000, 1 << 20);
    EXPECT(r.info().size == 8192 && r.info().size_max == 1 << 20 && r.info().name == std::string("other"));
    r.grow(10000);
    EXPECT(r.info().size == 12288);
    EXPECT_ERROR(SHELF_EXISTS, b.s.region_create("other", 4096));
    std::vector<shelf::region_info> all = b.s.regions();
    EXPECT(all.size() == 2 && all[0].region == b.main && all[1].region == r.number());
    EXPECT(shelf_addr_region(r.at(77)) == r && shelf_addr_offset(r.at(77)) == 77);
    EXPECT(b.s.region_drop("other"));
    EXPECT(!b.s.region_drop("other"));
    EXPECT(!b.s.region_open("other"));
    EXPECT_ERROR(SHELF_NOT_FOUND, r.info());
    EXPECT_ERROR(SHELF_NOT_FOUND, b.s.cluster());
}

/* ---- Transactions ------------------------------------------------------------------------------------------------- */

void test_transaction_commits_and_aborts() {
    plain_bed b;
    shelf::transaction tx = b.s.begin();
    tx.write(b.words.at(0), uint64_t{5});
    EXPECT(tx.read<uint64_t>(b.words.at(0)) == 5);
    shelf::receipt receipt = tx.commit();
    EXPECT(receipt.durability == SHELF_DURABLE_LOCAL && receipt.index <= b.s.applied());
    EXPECT(!tx);
    EXPECT_ERROR(SHELF_INVALID, tx.commit());
    EXPECT_ERROR(SHELF_INVALID, tx.index());
    {
        shelf::transaction dropped = b.s.begin();
        dropped.write(b.words.at(0), uint64_t{6});
    }
    tx = b.s.begin();
    tx.write(b.words.at(0), uint64_t{7});
    tx.abort();
    tx.abort();
    EXPECT(b.word(0) == 5);
    EXPECT_ERROR(SHELF_INVALID, b.s.begin(0));
    EXPECT_ERROR(SHELF_INVALID, b.s.read([&](shelf::transaction &t) { t.write(b.words.at(0), 1); }));
}

void test_transaction_moves() {
    plain_bed b;
    shelf::transaction one = b.s.begin();
    one.write(b.words.at(0), uint64_t{1});
    shelf::transaction two(std::move(one));
    EXPECT(!one && two);
    one = b.s.begin();
    one.write(b.words.at(8), uint64_t{2});
    two = std::move(one); /* aborts what two was */
    EXPECT(two && !one);
    two.commit();
    EXPECT(b.word(0) == 0 && b.word(8) == 2);
    static_assert(!std::is_copy_constructible_v<shelf::transaction>);
    static_assert(std::is_nothrow_move_assignable_v<shelf::transaction>);
}

void test_conflict_is_seen() {
    plain_bed b;
    shelf::transaction tx = b.s.begin();
    (void)tx.read<uint64_t>(b.words.at(0));
    b.set(0, 9);
    tx.write(b.words.at(8), uint64_t{1});
    shelf::receipt receipt;
    EXPECT(tx.try_commit(receipt) == SHELF_CONFLICT);
    EXPECT(!tx);
    tx = b.s.begin();
    (void)tx.read<uint64_t>(b.words.at(0));
    b.set(0, 10);
    tx.write(b.words.at(8), uint64_t{1});
    EXPECT_ERROR(SHELF_CONFLICT, tx.commit());
    EXPECT(b.word(8) == 0);
}

void test_operations() {
    plain_bed b;
    b.set(0, 12);
    shelf::receipt receipt = [&] {
        shelf::transaction tx = b.s.begin();
        tx.add(b.words.at(0), 30);
        tx.min(b.words.at(64), 5);
        tx.max(b.words.at(128), 5);
        tx.bit_or(b.words.at(192), 6);
        tx.bit_and(b.words.at(192), 3);
        return tx.commit();
    }();
    EXPECT(receipt.result_count == 5);
    EXPECT(receipt.results[0] == 42 && receipt.results[1] == 0 && receipt.results[2] == 5);
    EXPECT(receipt.results[3] == 6 && receipt.results[4] == 2);
    EXPECT(b.word(0) == 42 && b.word(192) == 2);
}

void test_views_and_checks() {
    plain_bed b;
    b.set(64, 77);
    shelf::transaction tx = b.s.begin(SHELF_READ_ONLY);
    tx.prefetch(b.words.at(64), 8);
    const uint64_t &value = tx.view<uint64_t>(b.words.at(64));
    shelf::bytes raw = tx.view(b.words.at(64), 8);
    EXPECT(value == 77 && raw.data() == &value && raw.as<uint64_t>() == 77);
    tx.check();
    b.set(64, 78);
    EXPECT_ERROR(SHELF_CONFLICT, tx.check());
    tx = b.s.begin(SHELF_READ_ONLY);
    EXPECT_ERROR(SHELF_INVALID, (void)tx.view<uint64_t>(b.words.at(4)));
    EXPECT_ERROR(SHELF_INVALID, (void)tx.view(b.words.at(0), 1 << 20));
    EXPECT(tx.index() == b.s.applied());
}

/* ---- run() -------------------------------------------------------------------------------------------------------- */

void test_run_returns_the_value() {
    plain_bed b;
    shelf::receipt receipt{};
    std::string text = b.s.run(
        [&](shelf::transaction &tx) {
            tx.add(b.words.at(0), 2);
            return std::string("a text that is longer than what fits into the string");
        },
        &receipt);
    EXPECT(text.size() > 32 && receipt.results[0] == 2);
    auto pointer = b.s.run([](shelf::transaction &) { return std::make_unique<int>(3); });
    EXPECT(*pointer == 3); /* only moved */
    std::function<int(shelf::transaction &)> stored = [](shelf::transaction &) { return 4; };
    EXPECT(b.s.run(stored) == 4);
    struct no_default {
        explicit no_default(int n) : number(n) {}
        int number;
    };
    EXPECT(b.s.read([](shelf::transaction &) { return no_default(5); }).number == 5);
}

void test_run_passes_exceptions_and_aborts() {
    plain_bed b;
    struct own {
        int number;
    };
    int caught = 0;
    try {
        b.s.run([&](shelf::transaction &tx) {
            tx.write(b.words.at(0), uint64_t{1});
            throw own{8};
        });
    } catch (const own &e) {
        caught = e.number;
    }
    EXPECT(caught == 8);
    EXPECT_ERROR(SHELF_NOT_FOUND, b.s.run([&](shelf::transaction &tx) {
        tx.write(b.words.at(0), uint64_t{1});
        (void)tx.read<int>(shelf_addr_make(999, 0));
    }));
    EXPECT(b.word(0) == 0);
}

void test_run_retries_conflicts() {
    plain_bed b;
    int attempts = 0;
    uint64_t sum = b.s.run([&](shelf::transaction &tx) {
        uint64_t value = tx.read<uint64_t>(b.words.at(0));
        if (++attempts <= 3)
            b.set(0, value + 10);
        tx.write(b.words.at(0), value + 1);
        return value + 1;
    });
    EXPECT(attempts == 4 && sum == 31 && b.word(0) == 31);

    /* one that is seen by a read, and thrown through the body */
    attempts = 0;
    b.s.run([&](shelf::transaction &tx) {
        (void)tx.read<uint64_t>(b.words.at(0));
        if (++attempts == 1) {
            b.s.run([&](shelf::transaction &other) {
                other.write(b.words.at(0), uint64_t{50});
                other.write(b.words.at(64), uint64_t{50});
            });
        }
        EXPECT(tx.read<uint64_t>(b.words.at(64)) == 50);
    });
    EXPECT(attempts == 2);
    EXPECT_ERROR(SHELF_TIMEOUT, b.s.run(
                                    [&](shelf::transaction &tx) {
                                        uint64_t value = tx.read<uint64_t>(b.words.at(0));
                                        b.set(0, value + 1);
                                        tx.write(b.words.at(0), value);
                                    },
                                    nullptr, 20));
}

/* What came of bytes that have changed is neither returned nor thrown. */
void test_run_trusts_no_stale_view() {
    plain_bed b;
    int attempts = 0;
    uint64_t seen = b.s.read([&](shelf::transaction &tx) {
        const uint64_t &value = tx.view<uint64_t>(b.words.at(0));
        if (++attempts == 1)
            b.set(0, 1);
        return value;
    });
    EXPECT(seen == 1 && attempts == 2);
    attempts = 0;
    b.s.read([&](shelf::transaction &tx) {
        (void)tx.view(b.words.at(0), 8);
        if (++attempts == 1) {
            b.set(0, 2);
            throw std::runtime_error("from bytes that were never there together");
        }
    });
    EXPECT(attempts == 2);
}

void test_run_keeps_its_transaction() {
    plain_bed b;
    EXPECT_ERROR(SHELF_INVALID, b.s.run([](shelf::transaction &tx) { tx.commit(); }));
    EXPECT_ERROR(SHELF_INVALID, b.s.run([](shelf::transaction &tx) { tx.commit_async(1); }));
    /* moved away, or done with early: run() ends it all the same, once */
    b.s.run([&](shelf::transaction &tx) {
        tx.write(b.words.at(0), uint64_t{3});
        shelf::transaction away(std::move(tx));
        EXPECT(!tx && away);
    });
    EXPECT(b.word(0) == 3);
}

void test_run_in_threads() {
    plain_bed b;
    std::atomic<unsigned> started{0};
    std::vector<std::thread> threads;
    for (unsigned n = 0; n < 4; n++) {
        threads.emplace_back([&] {
            started++;
            while (started < 4)
                std::this_thread::yield();
            for (int i = 0; i < 25; i++) {
                b.s.run([&](shelf::transaction &tx) {
                    tx.write(b.words.at(0), tx.read<uint64_t>(b.words.at(0)) + 1);
                    tx.add(b.words.at(64), 1);
                });
            }
        });
    }
    for (std::thread &thread : threads)
        thread.join();
    EXPECT(b.word(0) == 100 && b.word(64) == 100);
}

/* ---- Asynchronous commits, sessions ------------------------------------------------------------------------------- */

void test_asynchronous_commits() {
    plain_bed b;
    for (uint64_t tag = 1; tag <= 40; tag++) {
        shelf::transaction tx = b.s.begin();
        tx.add(b.words.at(0), tag);
        tx.commit_async(tag);
        EXPECT(!tx);
    }
    uint64_t tags = 0;
    size_t count = 0;
    while (count < 40) {
        pollfd waiting{b.s.completion_fd(), POLLIN, 0};
        EXPECT(poll(&waiting, 1, 10000) == 1);
        count += b.s.completions([&](const shelf::completion &done) {
            EXPECT(done.result == SHELF_OK && done.receipt.result_count == 1);
            tags += done.tag;
        });
    }
    shelf::completion none[2];
    EXPECT(count == 40 && tags == 820 && b.word(0) == 820 && b.s.completions(none, 2) == 0);
}

void test_sessions() {
    plain_bed b;
    shelf::session first = b.s.session_open("payments");
    EXPECT(first.last() == 0);
    auto add_once = [&](const shelf::session &session, uint64_t sequence) {
        shelf::transaction tx = session.begin();
        tx.sequence_set(sequence);
        tx.add(b.words.at(0), 10);
        return tx.commit();
    };
    EXPECT(!add_once(first, 1).replayed);
    EXPECT(add_once(first, 1).replayed);
    EXPECT(b.word(0) == 10 && first.last() == 1);
    EXPECT(first.outcome(1)->results[0] == 10);
    EXPECT(!first.outcome(2)); /* and never will be */
    EXPECT_ERROR(SHELF_ABORTED, add_once(first, 2));

    shelf::receipt receipt;
    EXPECT(first.run(
               [&](shelf::transaction &tx) {
                   tx.add(b.words.at(8), 1);
                   return 'x';
               },
               5, &receipt) == 'x');
    EXPECT(!receipt.replayed && receipt.sequence == 5);
    first.run([&](shelf::transaction &tx) { tx.add(b.words.at(8), 1); }, 5, &receipt);
    EXPECT(receipt.replayed && b.word(8) == 1);
    first.run([&](shelf::transaction &tx) { tx.add(b.words.at(8), 1); });
    EXPECT(b.word(8) == 2 && first.last() == 6);
    EXPECT_ERROR(SHELF_NOT_FOUND,
                 first.run([](shelf::transaction &) { throw shelf::error(SHELF_NOT_FOUND, "none"); }));

    shelf::session second = b.s.session_open("payments");
    EXPECT_ERROR(SHELF_FENCED, add_once(first, 7));
    EXPECT(add_once(second, 7).sequence == 7);
    first = std::move(second); /* closes the fenced one */
    EXPECT(!second && first.last() == 7);
    EXPECT_ERROR(SHELF_INVALID, second.last());
    first.expire();
    EXPECT(!first);
    first.close();
    static_assert(!std::is_copy_constructible_v<shelf::session>);
}

/* ---- Space and roots ---------------------------------------------------------------------------------------------- */

void test_allocator() {
    bed b;
    shelf::address kept = b.s.run([&](shelf::transaction &tx) {
        shelf::address one = tx.make(b.main, account{1, 100});
        shelf::address two = tx.alloc(b.main, 1000);
        EXPECT(two % 64 == 0 && tx.alloc_size(two) >= 1000);
        tx.free(two);
        return one;
    });
    b.s.read([&](shelf::transaction &tx) {
        EXPECT(tx.read<account>(kept).cents == 100);
        shelf::audit audit = tx.alloc_audit(b.main);
        EXPECT(audit.live + audit.free + audit.overhead == audit.total);
        EXPECT_ERROR(SHELF_INVALID, tx.alloc_size(kept + 4));
    });
    EXPECT_ERROR(SHELF_NO_SPACE, b.s.run([&](shelf::transaction &tx) { tx.alloc(b.main, 8 << 20); }));
}

void test_roots_know_the_layout() {
    bed b;
    const uint64_t layout = SHELF_LAYOUT(account, SHELF_FIELD(account, owner), SHELF_FIELD(account, cents));
    const shelf_field fields[] = {{"owner", 0, 8}, {"cents", 8, 8}};
    EXPECT(layout == shelf_layout_hash("account", sizeof(account), fields, 2)); /* as C has it */
    EXPECT(SHELF_LAYOUT(struct account, SHELF_FIELD(struct account, owner),
                        SHELF_FIELD(struct account, cents)) ==
           shelf_layout_hash("struct account", sizeof(account), fields, 2));
    EXPECT(std::string(shelf::version()) == SHELF_VERSION);
    b.s.run([&](shelf::transaction &tx) {
        EXPECT(!tx.root_get(b.main, "bank"));
        tx.root_set(b.main, "bank", tx.make(b.main, account{2, 50}), 'a', layout);
    });
    b.s.run([&](shelf::transaction &tx) {
        EXPECT(tx.read<account>(*tx.root_get(b.main, "bank", 'a', layout)).cents == 50);
        EXPECT(tx.root_get(b.main, "bank"));
        EXPECT_ERROR(SHELF_LAYOUT, tx.root_get(b.main, "bank", 'a', layout + 1));
        EXPECT(tx.root_at(b.main, 0)->name == std::string("bank") && !tx.root_at(b.main, 1));
        EXPECT_ERROR(SHELF_INVALID, tx.root_set(b.main, std::string(80, 'r'), b.main.at(0), 1, 1));
        EXPECT(tx.root_remove(b.main, "bank"));
        EXPECT(!tx.root_remove(b.main, "bank"));
    });
}

/* ---- Map ---------------------------------------------------------------------------------------------------------- */

void test_map_gets_and_puts() {
    bed b;
    b.s.run([&](shelf::transaction &tx) {
        EXPECT(!shelf::map::open(tx, b.main, "people"));
        shelf::map people = shelf::map::open_or_create(tx, b.main, "people");
        EXPECT_ERROR(SHELF_EXISTS, shelf::map::create(tx, b.main, "people"));
        people.put(tx, "ada", "Ada Lovelace");
        people.put(tx, std::string("big"), std::string(3000, 'x'));
        people.put(tx, 7, account{7, 700});
        people.put(tx, "empty", "");
    });
    b.s.run([&](shelf::transaction &tx) {
        shelf::map people = shelf::map::open(tx, b.main, "people").value();
        EXPECT(people.get(tx, "ada") == "Ada Lovelace");
        EXPECT(people.get(tx, "big")->size() == 3000);
        EXPECT(people.get(tx, "empty") == "");
        EXPECT(people.get<account>(tx, 7)->cents == 700);
        EXPECT(!people.get(tx, "bob") && !people.get<int>(tx, "bob"));
        EXPECT_ERROR(SHELF_LAYOUT, people.get<int>(tx, 7));
        EXPECT_ERROR(SHELF_LAYOUT, people.get<account>(tx, "ada"));
        std::string reused(4000, ' ');
        const void *memory = reused.data();
        EXPECT(people.get(tx, "big", reused) && reused.size() == 3000 && reused.data() == memory);
        EXPECT(people.get(tx, "ada", reused) && reused == "Ada Lovelace" && reused.data() == memory);
        EXPECT(!people.get(tx, "bob", reused));
        EXPECT(people.contains(tx, "big") && !people.contains(tx, "bob"));
        EXPECT(people.erase(tx, 7) && !people.erase(tx, 7));
        EXPECT(people.count(tx) == 3);
        people.verify(tx);
        EXPECT_ERROR(SHELF_INVALID, people.put(tx, "", "x"));
    });
    b.s.run([&](shelf::transaction &tx) {
        EXPECT(shelf::map::drop(tx, b.main, "people") && !shelf::map::drop(tx, b.main, "people"));
    });
}

void test_map_gets_many() {
    bed b;
    std::vector<uint32_t> keys;
    shelf::map squares = b.s.run([&](shelf::transaction &tx) {
        shelf::map made = shelf::map::create(tx, b.main, "squares");
        for (uint32_t n = 0; n < 100; n++) {
            keys.push_back(n);
            if (n % 10 != 3)
                made.put(tx, n, uint64_t{n} * n);
        }
        return made;
    });
    b.s.read([&](shelf::transaction &tx) {
        std::vector<std::optional<uint64_t>> values = squares.get_many<uint64_t>(tx, keys);
        EXPECT(values.size() == 100);
        for (uint64_t n = 0; n < 100; n++)
            EXPECT(values[n] == (n % 10 != 3 ? std::optional(n * n) : std::nullopt));
        EXPECT(squares.get_many<uint64_t>(tx, std::vector<uint32_t>()).empty());
        EXPECT(squares.get_many<uint64_t>(tx, std::array<std::string, 1>{"none"})[0] == std::nullopt);
        EXPECT_ERROR(SHELF_LAYOUT, squares.get_many<char>(tx, keys));
    });
}

void test_map_entries() {
    bed b;
    b.s.run([&](shelf::transaction &tx) {
        shelf::map m = shelf::map::create(tx, b.main, "m");
        for (auto entry : m.entries(tx))
            EXPECT(entry.key.size() > 1000);
        for (size_t n = 1; n <= 60; n++)
            m.put(tx, std::string(n, 'k'), std::string(n * 40, 'v'));
        size_t seen = 0, bytes = 0;
        for (const auto &[key, value] : m.entries(tx)) {
            EXPECT(value.size() == 40 * key.size() &&
                   value.chars().find_first_not_of('v') == value.chars().npos);
            seen++;
            bytes += key.size();
        }
        EXPECT(seen == 60 && bytes == 60 * 61 / 2);
        for (const auto &entry : m.entries(tx))
            EXPECT(m.erase(tx, entry.key));
        EXPECT(m.count(tx) == 0);
    });
}

/* ---- Stream ------------------------------------------------------------------------------------------------------- */

void test_stream() {
    bed b;
    shelf::stream log = b.s.run([&](shelf::transaction &tx) {
        EXPECT(!shelf::stream::open(tx, b.main, "log"));
        shelf::stream made = shelf::stream::open_or_create(tx, b.main, "log");
        EXPECT(made.append(tx, 1000, "one") == 0);
        EXPECT(made.append(tx, 1001, account{1, 2}) == 1);
        EXPECT(made.append(tx, 1002, std::string(5000, 'x')) == 2);
        return made;
    });
    b.s.run([&](shelf::transaction &tx) {
        EXPECT(shelf::stream::open(tx, b.main, "log")->get().header == log.get().header);
        auto [first, next] = log.bounds(tx);
        EXPECT(first == 0 && next == 3);
        EXPECT(log.read(tx, 0)->bytes == "one" && log.read(tx, 0)->time_ms == 1000);
        EXPECT(shelf::bytes(log.read(tx, 1)->bytes).as<account>().cents == 2);
        EXPECT(log.read(tx, 2)->bytes.size() == 5000);
        EXPECT(!log.read(tx, 3));
        uint64_t position = 0;
        for (const auto &record : log.records(tx)) {
            EXPECT(record.position == position && record.time_ms == 1000 + position);
            position++;
        }
        EXPECT(position == 3);
        for (const auto &record : log.records(tx, 2))
            EXPECT(record.bytes.size() == 5000);
        log.verify(tx);
        EXPECT(shelf::stream::drop(tx, b.main, "log"));
        EXPECT(!shelf::stream::drop(tx, b.main, "log"));
    });
}

void test_stream_trims() {
    bed b;
    shelf::stream log;
    b.s.run([&](shelf::transaction &tx) {
        shelf::stream_options kept{};
        kept.bytes_max = 1 << 18;
        log = shelf::stream::create(tx, b.main, "log", kept);
        for (uint64_t n = 0; n < 100; n++)
            log.append(tx, n, std::string(1000, 'x'));
        log.trim(tx, 90);
        uint64_t first = log.bounds(tx).first;
        EXPECT(first > 0 && first <= 90);
        EXPECT_ERROR(SHELF_EXPIRED, log.read(tx, first - 1));
        EXPECT(log.records(tx).begin()->position == first);
    });
}

struct named_test {
    const char *name;
    void (*run)();
};
#define TEST(name) \
    { #name, name }

const named_test tests[] = {
    TEST(test_error_tells_what_happened),
    TEST(test_bytes_of_everything),
    TEST(test_names_are_checked),
    TEST(test_store_opens_and_reopens),
    TEST(test_store_moves),
    TEST(test_regions),
    TEST(test_transaction_commits_and_aborts),
    TEST(test_transaction_moves),
    TEST(test_conflict_is_seen),
    TEST(test_operations),
    TEST(test_views_and_checks),
    TEST(test_run_returns_the_value),
    TEST(test_run_passes_exceptions_and_aborts),
    TEST(test_run_retries_conflicts),
    TEST(test_run_trusts_no_stale_view),
    TEST(test_run_keeps_its_transaction),
    TEST(test_run_in_threads),
    TEST(test_asynchronous_commits),
    TEST(test_sessions),
    TEST(test_allocator),
    TEST(test_roots_know_the_layout),
    TEST(test_map_gets_and_puts),
    TEST(test_map_gets_many),
    TEST(test_map_entries),
    TEST(test_stream),
    TEST(test_stream_trims),
};

} // namespace

int main() {
    unsigned passed = 0, failed = 0;
    for (const named_test &test : tests) {
        try {
            test.run();
            passed++;
        } catch (const std::exception &e) {
            std::printf("FAILED: %s: %s\n", test.name, e.what());
            failed++;
        }
    }
    std::printf("%u passed, %u failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
