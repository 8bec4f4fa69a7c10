// SPDX-License-Identifier: Apache-2.0
/*
 * shelf.hpp: Shelf for C++17 and later, in this one file. docs/cpp.md is a tutorial, shelf.h the manual: what a function
 * promises is said there, and here only what is different.
 *
 *   Names        shelf_region_create(s, ...) is s.region_create(...), shelf_map_put(tx, map, ...) is map.put(tx, ...).
 *   Errors       Whatever is not OK is thrown as shelf::error. What is normal is returned instead: an optional that is
 *                empty or `false` for NOT_FOUND. CONFLICT is thrown too; store::run() catches it and runs the body again.
 *   Ownership    store, session and transaction own a handle: they move, do not copy, and end it in the destructor (a
 *                transaction aborts, a store closes). region, map and stream are names of something, to be copied freely.
 *                A store outlives its sessions and transactions.
 *   Bytes        Keys, values and records go in as shelf::bytes, which everything converts to that has bytes to give:
 *                strings, literals (without their NUL), spans, vectors, arrays, and plain structs as they are in memory.
 *   Memory       Nothing is allocated but the std::string and std::vector that a function is seen to return or to fill,
 *                and exceptions. Each function that returns one has a sibling that fills one of yours.
 *   Threads      As in C: a store and a session serve any number of threads, a transaction one at a time.
 *
 * In C, `shelf` is the type of a handle; in C++ it is this namespace, and the type is called shelf_handle. A file that wants
 * both headers therefore includes only this one, which brings everything else of shelf.h along.
 */
#ifndef SHELF_HPP
#define SHELF_HPP

#ifdef SHELF_H
#error \
    "include shelf.hpp instead of shelf.h: it brings shelf.h along, with the type `shelf` renamed shelf_handle"
#endif

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#define shelf shelf_handle
#include "shelf.h"
#undef shelf
#pragma GCC diagnostic pop

namespace shelf {

using address = shelf_addr;
using receipt = shelf_receipt;
using completion = shelf_completion;
using info = shelf_info;
using region_info = shelf_region_info;
using audit = struct shelf_alloc_sums;
using stream_options = shelf_stream_options;

/* Of the library that runs. */
inline const char *version() noexcept {
    return shelf_version();
}

/* ---- Errors ------------------------------------------------------------------------------------------------------- */

/* Anything but OK. Holds its text itself, so that throwing it allocates nothing beyond the exception. */
class error : public std::exception {
  public:
    /* The detail is that of this thread's last failed call. `sequence` is the one of a commit that ended UNKNOWN. */
    explicit error(shelf_result result, uint64_t sequence = 0) noexcept
        : error(result, shelf_detail(), sequence) {}
    error(shelf_result result, const char *detail, uint64_t sequence = 0) noexcept
        : result_(result), sequence_(sequence) {
        const char *name = shelf_result_name(result);
        std::snprintf(text_, sizeof(text_), "%s: %s", name,
                      *detail != '\0' ? detail : shelf_result_text(result));
        detail_ = *detail != '\0' ? std::strlen(name) + 2 : std::strlen(text_);
    }

    shelf_result result() const noexcept { return result_; }
    /* What exactly failed; "" if there is no more to say than the result does. */
    const char *detail() const noexcept { return text_ + detail_; }
    /* The sequence to ask session::outcome() about, 0 if there is none. */
    uint64_t sequence() const noexcept { return sequence_; }
    /* "NOT_FOUND: there is no region "main"" */
    const char *what() const noexcept override { return text_; }

  private:
    shelf_result result_;
    uint64_t sequence_;
    size_t detail_;
    char text_[288];
};

namespace detail {

/* Apart, so that the way without errors stays short. */
[[noreturn]] inline void fail(shelf_result result, uint64_t sequence = 0) {
    throw error(result, sequence);
}

inline void check(shelf_result result) {
    if (result != SHELF_OK)
        fail(result);
}

/* For calls to which NOT_FOUND is an answer. */
inline bool found(shelf_result result) {
    if (result == SHELF_NOT_FOUND)
        return false;
    check(result);
    return true;
}

/* A name with the NUL that C wants behind it. One that is too long stays too long, for the library to refuse. */
class name {
  public:
    name(std::string_view from) {
        if (from.find('\0') != from.npos)
            throw error(SHELF_INVALID, "a name has a NUL byte in it");
        size_t size = from.size() < sizeof(text_) ? from.size() : sizeof(text_) - 1;
        from.copy(text_, size);
        text_[size] = '\0';
    }
    operator const char *() const noexcept { return text_; }

  private:
    char text_[SHELF_NAME_MAX + 2];
};

/* Values that are nothing but their bytes. A pointer's bytes mean nothing to the next run of the program. */
template <class T>
inline constexpr bool is_plain = std::is_trivially_copyable_v<T> && !std::is_pointer_v<T> &&
                                 !std::is_member_pointer_v<T> && !std::is_null_pointer_v<T>;

template <class T>
using element = std::remove_cv_t<std::remove_pointer_t<decltype(std::data(std::declval<const T &>()))>>;

/* Things that have data() and size(): strings, spans, vectors, arrays. */
template <class T, class = void> inline constexpr bool is_range = false;
template <class T>
inline constexpr bool is_range<T, std::void_t<element<T>, decltype(std::size(std::declval<const T &>()))>> =
    true;

template <class T, bool = is_range<T>> struct unit { using type = T; };
template <class T> struct unit<T, true> { using type = element<T>; };

/* What `bytes` is made of: the elements of a range, anything else itself. */
template <class T> using unit_t = typename unit<T>::type;

template <class T> inline constexpr bool is_literal = std::is_array_v<T> &&std::is_same_v<unit_t<T>, char>;

} // namespace detail

/* ---- Bytes -------------------------------------------------------------------------------------------------------- */

/* Somebody else's bytes, like std::string_view; valid as long as what it was made from. */
class bytes {
  public:
    constexpr bytes() noexcept = default;
    constexpr bytes(const void *data, size_t size) noexcept : data_(data), size_(size) {}
    bytes(const char *text) noexcept : data_(text), size_(std::strlen(text)) {}
    bytes(std::nullptr_t) = delete;
    template <class T, class = std::enable_if_t<!std::is_base_of_v<bytes, T> && !detail::is_literal<T> &&
                                                detail::is_plain<detail::unit_t<T>>>>
    bytes(const T &from) noexcept {
        if constexpr (detail::is_range<T>) {
            data_ = std::data(from);
            size_ = std::size(from) * sizeof(detail::unit_t<T>);
        } else {
            data_ = std::addressof(from);
            size_ = sizeof(from);
        }
    }

    constexpr const void *data() const noexcept { return data_; }
    constexpr size_t size() const noexcept { return size_; }
    std::string_view chars() const noexcept { return {static_cast<const char *>(data_), size_}; }

    /* The bytes as a T, which has to have just as many (LAYOUT). */
    template <class T> T as() const {
        static_assert(detail::is_plain<T>, "only values that are nothing but their bytes can be stored");
        if (size_ != sizeof(T))
            size_mismatch(size_, sizeof(T));
        T value;
        std::memcpy(&value, data_, sizeof(T));
        return value;
    }

    [[noreturn]] static void size_mismatch(size_t stored, size_t wanted) {
        char text[96];
        std::snprintf(text, sizeof(text), "%zu bytes are stored, and the type has %zu", stored, wanted);
        throw error(SHELF_LAYOUT, text);
    }

  private:
    const void *data_ = nullptr;
    size_t size_ = 0;
};

/* A key is found by its bytes, so equal keys must have equal bytes: no structs with padding, no floating point. */
class key : public bytes {
  public:
    constexpr key(const void *data, size_t size) noexcept : bytes(data, size) {}
    key(const char *text) noexcept : bytes(text) {}
    key(const bytes &from) noexcept : bytes(from) {}
    template <class T, class = std::enable_if_t<!std::is_base_of_v<bytes, T> && !detail::is_literal<T> &&
                                                detail::is_plain<detail::unit_t<T>>>>
    key(const T &from) noexcept : bytes(from) {
        static_assert(std::has_unique_object_representations_v<detail::unit_t<T>>,
                      "equal values of this type may differ in their bytes: it cannot be a key");
    }
};

inline uint64_t layout_hash(const char *type, size_t size, std::initializer_list<shelf_field> fields) {
    return shelf_layout_hash(type, size, fields.begin(), fields.size());
}

namespace detail {

/* A string filled by get(buffer, buffer_size, &size), which is asked again if the string was too short. */
template <class Get> bool fetch(std::string &into, Get get) {
    constexpr size_t without_memory = 15; /* what strings hold in themselves */
    if (into.size() < without_memory)
        into.resize(without_memory);
    for (;;) {
        size_t size = 0;
        if (!found(get(into.data(), into.size(), &size)))
            return false;
        bool whole = size <= into.size();
        into.resize(size);
        if (whole)
            return true;
    }
}

struct end {};

/* What a range-based for needs: Range has step(), false at the end, and item. A range is walked once. */
template <class Range> class iterator {
  public:
    using iterator_category = std::input_iterator_tag;
    using value_type = std::remove_cv_t<std::remove_reference_t<decltype(std::declval<Range &>().item())>>;
    using difference_type = std::ptrdiff_t;
    using pointer = const value_type *;
    using reference = const value_type &;

    explicit iterator(Range *range) : range_(range) { ++*this; }
    iterator &operator++() {
        if (!range_->step())
            range_ = nullptr;
        return *this;
    }
    reference operator*() const { return range_->item(); }
    pointer operator->() const { return &range_->item(); }
    friend bool operator==(const iterator &a, end) { return a.range_ == nullptr; }
    friend bool operator!=(const iterator &a, end) { return a.range_ != nullptr; }

  private:
    Range *range_;
};

} // namespace detail

/* ---- Regions ------------------------------------------------------------------------------------------------------ */

/* A region's number, and the shelf that it is in. */
class region {
  public:
    region() noexcept = default;
    region(shelf_handle *s, shelf_region number) noexcept : s_(s), number_(number) {}

    shelf_region number() const noexcept { return number_; }
    operator shelf_region() const noexcept { return number_; }
    address at(uint64_t offset) const noexcept { return shelf_addr_make(number_, offset); }

    void grow(uint64_t size) const { detail::check(shelf_region_grow(s_, number_, size)); }
    /* Each that is SHELF_KEEP stays as it is. */
    void access(uint32_t owner, uint32_t group, uint32_t mode) const {
        detail::check(shelf_region_access(s_, number_, owner, group, mode));
    }
    region_info info() const {
        region_info now;
        detail::check(shelf_region_info_get(s_, number_, &now));
        return now;
    }

  private:
    shelf_handle *s_ = nullptr;
    shelf_region number_ = 0;
};

/* ---- Transactions ------------------------------------------------------------------------------------------------- */

class transaction {
  public:
    transaction() noexcept = default;
    /* Takes over what a function of shelf.h has begun. */
    explicit transaction(shelf_tx *tx) noexcept : tx_(tx), own_(true) {}
    transaction(transaction &&from) noexcept
        : tx_(std::exchange(from.tx_, nullptr)), own_(std::exchange(from.own_, false)) {}
    transaction &operator=(transaction &&from) noexcept {
        transaction old(std::move(*this));
        tx_ = std::exchange(from.tx_, nullptr);
        own_ = std::exchange(from.own_, false);
        return *this;
    }
    ~transaction() { abort(); }

    /* For the functions of shelf.h. Throws INVALID if the transaction has ended. */
    shelf_tx *get() const {
        if (!tx_)
            throw error(SHELF_INVALID, "the transaction has ended");
        return tx_;
    }
    explicit operator bool() const noexcept { return tx_ != nullptr; }

    /* Ends the transaction, whatever comes of it. */
    receipt commit() {
        receipt done{};
        shelf_result result = try_commit(done);
        if (result != SHELF_OK)
            detail::fail(result, done.sequence);
        return done;
    }
    /* The same for those who want to look at the result themselves. */
    [[nodiscard]] shelf_result try_commit(receipt &ret_receipt) { return shelf_commit(give(), &ret_receipt); }
    void commit_async(uint64_t tag) { detail::check(shelf_commit_async(give(), tag)); }
    void abort() noexcept {
        if (own_)
            shelf_abort(tx_);
        tx_ = nullptr;
        own_ = false;
    }

    uint64_t index() const { return shelf_tx_index(get()); }
    uint32_t hint() const { return shelf_tx_hint(get()); }
    void sequence_set(uint64_t sequence) { detail::check(shelf_tx_sequence_set(get(), sequence)); }

    /* Reads and writes. What is not a struct or a number is written as its elements, see bytes. */
    void read(address from, void *to, size_t size) { detail::check(shelf_read(get(), from, to, size)); }
    template <class T> T read(address from) {
        static_assert(detail::is_plain<T>, "only values that are nothing but their bytes can be stored");
        T value;
        read(from, &value, sizeof(value));
        return value;
    }
    void write(address to, bytes from) { detail::check(shelf_write(get(), to, from.data(), from.size())); }
    void prefetch(address from, size_t size) { shelf_prefetch(get(), from, size); }

    /* The bytes themselves, to be trusted after a check() that follows the last look at them. store::run() and
     * store::read() check when the body has returned or thrown. */
    bytes view(address from, size_t size) {
        const void *data;
        detail::check(shelf_view(get(), from, size, &data));
        return {data, size};
    }
    template <class T> const T &view(address from) {
        static_assert(detail::is_plain<T>, "only values that are nothing but their bytes can be stored");
        if (from % alignof(T) != 0)
            throw error(SHELF_INVALID, "the address is not aligned as the type needs it");
        return *static_cast<const T *>(view(from, sizeof(T)).data());
    }
    void check() { detail::check(shelf_check(get())); }

    /* Operations that never conflict with one another; the results are in the receipt. */
    void add(address word, uint64_t operand) { detail::check(shelf_add(get(), word, operand)); }
    void min(address word, uint64_t operand) { detail::check(shelf_min(get(), word, operand)); }
    void max(address word, uint64_t operand) { detail::check(shelf_max(get(), word, operand)); }
    void bit_and(address word, uint64_t operand) { detail::check(shelf_and(get(), word, operand)); }
    void bit_or(address word, uint64_t operand) { detail::check(shelf_or(get(), word, operand)); }

    /* Space */
    void format(shelf_region in) { detail::check(shelf_format(get(), in)); }
    address alloc(shelf_region in, size_t size) {
        address block;
        detail::check(shelf_alloc(get(), in, size, &block));
        return block;
    }
    /* Space for one T, with this in it. */
    template <class T> address make(shelf_region in, const T &value) {
        static_assert(detail::is_plain<T>, "only values that are nothing but their bytes can be stored");
        address block = alloc(in, sizeof(value));
        write(block, {&value, sizeof(value)});
        return block;
    }
    void free(address block) { detail::check(shelf_free(get(), block)); }
    size_t alloc_size(address block) {
        size_t size;
        detail::check(shelf_alloc_size(get(), block, &size));
        return size;
    }
    audit alloc_audit(shelf_region in) {
        audit result;
        detail::check(shelf_alloc_audit(get(), in, &result));
        return result;
    }

    /* Named roots. A root of another type or layout is an error (LAYOUT), none at all is not. */
    void root_set(shelf_region in, std::string_view name, address to, uint64_t type, uint64_t layout) {
        shelf_root root{};
        if (name.size() > SHELF_NAME_MAX)
            throw error(SHELF_INVALID, "a root's name is too long");
        std::strcpy(root.name, detail::name(name));
        root.type = type;
        root.layout = layout;
        root.address = to;
        detail::check(shelf_root_set(get(), in, &root));
    }
    std::optional<address> root_get(shelf_region in, std::string_view name, uint64_t type = 0,
                                    uint64_t layout = 0) {
        address to;
        if (!detail::found(shelf_root_get(get(), in, detail::name(name), type, layout, &to)))
            return std::nullopt;
        return to;
    }
    bool root_remove(shelf_region in, std::string_view name) {
        return detail::found(shelf_root_remove(get(), in, detail::name(name)));
    }
    std::optional<shelf_root> root_at(shelf_region in, size_t position) {
        shelf_root root;
        if (!detail::found(shelf_root_at(get(), in, position, &root)))
            return std::nullopt;
        return root;
    }

  private:
    template <class Body, class Value> friend struct attempt;

    /* The transaction is somebody else's to end. */
    struct borrowed {};
    transaction(shelf_tx *tx, borrowed) noexcept : tx_(tx) {}

    shelf_tx *give() {
        get();
        if (!own_)
            throw error(SHELF_INVALID, "the transaction is run()'s to commit");
        own_ = false;
        return std::exchange(tx_, nullptr);
    }

    shelf_tx *tx_ = nullptr;
    bool own_ = false;
};

/* ---- Running a body ----------------------------------------------------------------------------------------------- */

/* One body, called until it commits; what it returned or threw last. No exception crosses the C of shelf_run(). */
template <class Body, class Value> struct attempt {
    Body &body;
    std::optional<Value> value = std::nullopt;
    std::exception_ptr thrown = nullptr;

    /* A transaction that has failed with CONFLICT, or whose views have changed, makes no statement: neither a value nor
     * an exception that came of it is passed on. */
    static shelf_result call(shelf_tx *tx, void *context) noexcept {
        auto &self = *static_cast<attempt *>(context);
        self.thrown = nullptr;
        try {
            transaction borrowed(tx, transaction::borrowed{});
            if constexpr (std::is_void_v<std::invoke_result_t<Body &, transaction &>>) {
                self.body(borrowed);
                self.value.emplace();
            } else {
                self.value.emplace(self.body(borrowed));
            }
        } catch (const error &e) {
            if (e.result() == SHELF_CONFLICT)
                return SHELF_CONFLICT;
            self.thrown = std::current_exception();
        } catch (...) {
            self.thrown = std::current_exception();
        }
        shelf_result checked = shelf_check(tx);
        if (checked == SHELF_CONFLICT)
            self.thrown = nullptr;
        return self.thrown ? SHELF_ABORTED : checked;
    }

    Value finish(shelf_result result, uint64_t sequence) {
        if (thrown)
            std::rethrow_exception(std::move(thrown));
        if (result != SHELF_OK)
            detail::fail(result, sequence);
        return std::move(*value);
    }
};

namespace detail {

struct nothing {};
template <class Body> using value_of = std::decay_t<std::invoke_result_t<Body &, transaction &>>;
template <class Body>
using attempt_of = attempt<Body, std::conditional_t<std::is_void_v<value_of<Body>>, nothing, value_of<Body>>>;

template <class Body>
value_of<Body> run(shelf_session *session, uint64_t sequence, Body &body, uint32_t deadline_ms,
                   receipt *ret_receipt) {
    attempt_of<Body> attempts{body};
    receipt done{};
    shelf_result result =
        shelf_session_run(session, sequence, attempt_of<Body>::call, &attempts, deadline_ms, &done);
    if (ret_receipt && result == SHELF_OK)
        *ret_receipt = done;
    if (result == SHELF_UNKNOWN) /* whatever the body threw when it ran again */
        attempts.thrown = nullptr;
    return static_cast<value_of<Body>>(attempts.finish(result, done.sequence));
}

template <class Body>
value_of<Body> run(shelf_handle *s, unsigned flags, Body &body, uint32_t deadline_ms, receipt *ret_receipt) {
    attempt_of<Body> attempts{body};
    receipt done{};
    shelf_result result = shelf_run(s, flags, attempt_of<Body>::call, &attempts, deadline_ms, &done);
    if (ret_receipt && result == SHELF_OK)
        *ret_receipt = done;
    return static_cast<value_of<Body>>(attempts.finish(result, done.sequence));
}

} // namespace detail

/* ---- Sessions ----------------------------------------------------------------------------------------------------- */

class session {
  public:
    session() noexcept = default;
    explicit session(shelf_session *handle) noexcept : session_(handle) {}
    session(session &&from) noexcept : session_(std::exchange(from.session_, nullptr)) {}
    session &operator=(session &&from) noexcept {
        shelf_session_close(std::exchange(session_, std::exchange(from.session_, nullptr)));
        return *this;
    }
    ~session() { close(); }

    shelf_session *get() const {
        if (!session_)
            throw error(SHELF_INVALID, "the session has been closed");
        return session_;
    }
    explicit operator bool() const noexcept { return session_ != nullptr; }

    void close() noexcept { shelf_session_close(std::exchange(session_, nullptr)); }
    /* Forgets the session for good. */
    void expire() {
        get();
        detail::check(shelf_session_expire(std::exchange(session_, nullptr)));
    }
    uint64_t last() const { return shelf_session_last(get()); }
    transaction begin(unsigned flags = SHELF_READ_WRITE) const {
        shelf_tx *tx;
        detail::check(shelf_session_begin(get(), flags, &tx));
        return transaction(tx);
    }
    /* store::run() in the session, with its effect once: see shelf_session_run(). */
    template <class Body>
    detail::value_of<Body> run(Body &&body, uint64_t sequence = 0, receipt *ret_receipt = nullptr,
                               uint32_t deadline_ms = 0) const {
        return detail::run<std::remove_reference_t<Body>>(get(), sequence, body, deadline_ms, ret_receipt);
    }
    /* Settles an UNKNOWN: the receipt, or nothing if the sequence has not had and will not have any effect. */
    std::optional<receipt> outcome(uint64_t sequence) const {
        receipt done;
        shelf_result result = shelf_session_outcome(get(), sequence, &done);
        if (result == SHELF_ABORTED)
            return std::nullopt;
        detail::check(result);
        return done;
    }

  private:
    shelf_session *session_ = nullptr;
};

/* ---- The shelf ---------------------------------------------------------------------------------------------------- */

/* The fields of shelf.h's shelf_options, all of them default to begin with. Flags convert: store s(where, SHELF_OPEN_CREATE). */
struct options : shelf_options {
    options(unsigned open_flags = 0) noexcept : shelf_options{} { flags = open_flags; }
};

class store {
  public:
    store() noexcept = default;
    explicit store(const std::string &where, const options &how = {}) {
        if (where.find('\0') != where.npos)
            throw error(SHELF_INVALID, "the place has a NUL byte in it");
        detail::check(shelf_open(where.c_str(), &how, &s_));
    }
    store(store &&from) noexcept : s_(std::exchange(from.s_, nullptr)) {}
    store &operator=(store &&from) noexcept {
        (void)shelf_close(std::exchange(s_, std::exchange(from.s_, nullptr)));
        return *this;
    }
    ~store() { (void)shelf_close(s_); }

    shelf_handle *get() const {
        if (!s_)
            throw error(SHELF_INVALID, "the shelf has been closed");
        return s_;
    }
    explicit operator bool() const noexcept { return s_ != nullptr; }

    /* What the destructor does, for those who want to know whether the checkpoint was written. */
    void close() { detail::check(shelf_close(std::exchange(s_, nullptr))); }

    /* ret: the index that the checkpoint is exact at. */
    uint64_t checkpoint() const {
        uint64_t index;
        detail::check(shelf_checkpoint(get(), &index));
        return index;
    }
    uint64_t applied() const { return shelf_applied(get()); }
    shelf::info info() const {
        shelf_info now;
        detail::check(shelf_info_get(get(), &now));
        return now;
    }

    shelf_stats stats() const {
        shelf_stats now;
        detail::check(shelf_stats_get(get(), &now));
        return now;
    }
    shelf_staleness staleness() const {
        shelf_staleness now;
        detail::check(shelf_staleness_get(get(), &now));
        return now;
    }
    std::vector<shelf_client_info> clients() const {
        std::vector<shelf_client_info> infos;
        size_t count = 0;
        do { /* others may come between the calls */
            infos.resize(count);
            detail::check(shelf_client_list(get(), infos.data(), infos.size(), &count));
        } while (count > infos.size());
        infos.resize(count);
        return infos;
    }

    /* SHELF_NOT_FOUND: the node is alone. */
    shelf_cluster_info cluster() const {
        shelf_cluster_info now;
        detail::check(shelf_cluster_get(get(), &now));
        return now;
    }

    /* Sleeps until the range has changed after index `since`, here or in another process; false: not within the time. */
    bool wait(address from, uint64_t length, uint64_t since, uint32_t timeout_ms = UINT32_MAX) const {
        shelf_result result = shelf_wait(get(), from, length, since, timeout_ms);
        if (result != SHELF_TIMEOUT)
            detail::check(result);
        return result == SHELF_OK;
    }

    region region_create(std::string_view name, uint64_t size, uint64_t size_max = 0) const {
        shelf_region number;
        detail::check(shelf_region_create(get(), detail::name(name), size, size_max, &number));
        return {get(), number};
    }
    std::optional<region> region_open(std::string_view name) const {
        shelf_region number;
        if (!detail::found(shelf_region_open(get(), detail::name(name), &number)))
            return std::nullopt;
        return region(get(), number);
    }
    bool region_drop(std::string_view name) const {
        return detail::found(shelf_region_drop(get(), detail::name(name)));
    }
    std::vector<region_info> regions() const {
        std::vector<region_info> infos;
        size_t count = 0;
        do { /* others may create some between the calls */
            infos.resize(count);
            detail::check(shelf_region_list(get(), infos.data(), infos.size(), &count));
        } while (count > infos.size());
        infos.resize(count);
        return infos;
    }

    transaction begin(unsigned flags = SHELF_READ_WRITE) const {
        shelf_tx *tx;
        detail::check(shelf_begin(get(), flags, &tx));
        return transaction(tx);
    }

    /* Calls body(transaction &) and commits; on CONFLICT again, as shelf_run() does. Returns what the body returned. An
     * exception of the body aborts the transaction and is passed on. `ret_receipt` may be null. */
    template <class Body>
    detail::value_of<Body> run(Body &&body, receipt *ret_receipt = nullptr, uint32_t deadline_ms = 0) const {
        return detail::run<std::remove_reference_t<Body>>(get(), SHELF_READ_WRITE, body, deadline_ms,
                                                          ret_receipt);
    }
    /* The same in a read-only transaction; views are checked when the body is done. */
    template <class Body> detail::value_of<Body> read(Body &&body, unsigned flags = 0) const {
        return detail::run<std::remove_reference_t<Body>>(get(), SHELF_READ_ONLY | flags, body, 0, nullptr);
    }

    int completion_fd() const { return shelf_completion_fd(get()); }
    size_t completions(completion *ret_completions, size_t count_max) const {
        return shelf_completions(get(), ret_completions, count_max);
    }
    /* Hands all that wait to take(const completion &); returns how many those were. */
    template <class Take> size_t completions(Take &&take) const {
        completion some[16];
        size_t total = 0;
        for (size_t count; (count = completions(some, std::size(some))) > 0; total += count)
            std::for_each(some, some + count, take);
        return total;
    }

    session session_open(std::string_view name) const {
        shelf_session *handle;
        detail::check(shelf_session_open(get(), detail::name(name), &handle));
        return session(handle);
    }

  private:
    shelf_handle *s_ = nullptr;
};

/* ---- Map ---------------------------------------------------------------------------------------------------------- */

class map {
  public:
    struct entry {
        bytes key, value; /* valid until the next step of the loop */
    };
    class entry_range;

    map() noexcept = default;
    explicit map(shelf_map handle) noexcept : handle_(handle) {}

    static map create(transaction &tx, shelf_region in, std::string_view name) {
        map made;
        detail::check(shelf_map_create(tx.get(), in, detail::name(name), &made.handle_));
        return made;
    }
    static std::optional<map> open(transaction &tx, shelf_region in, std::string_view name) {
        map opened;
        if (!detail::found(shelf_map_open(tx.get(), in, detail::name(name), &opened.handle_)))
            return std::nullopt;
        return opened;
    }
    static map open_or_create(transaction &tx, shelf_region in, std::string_view name) {
        std::optional<map> opened = open(tx, in, name);
        return opened ? *opened : create(tx, in, name);
    }
    static bool drop(transaction &tx, shelf_region in, std::string_view name) {
        return detail::found(shelf_map_drop(tx.get(), in, detail::name(name)));
    }

    shelf_map get() const noexcept { return handle_; }

    /* A value that was put as a T (LAYOUT if it has another size). */
    template <class T> std::optional<T> get(transaction &tx, key of) const {
        static_assert(detail::is_plain<T>, "only values that are nothing but their bytes can be stored");
        T value;
        size_t size;
        if (!detail::found(
                shelf_map_get(tx.get(), handle_, of.data(), of.size(), &value, sizeof(value), &size)))
            return std::nullopt;
        if (size != sizeof(value))
            bytes::size_mismatch(size, sizeof(value));
        return value;
    }
    std::optional<std::string> get(transaction &tx, key of) const {
        std::string value;
        if (!get(tx, of, value))
            return std::nullopt;
        return value;
    }
    /* Into a string that keeps its memory from call to call; false, and no telling what is in it, if there is no such key. */
    bool get(transaction &tx, key of, std::string &ret_value) const {
        return detail::fetch(ret_value, [&](char *value, size_t value_max, size_t *ret_size) {
            return shelf_map_get(tx.get(), handle_, of.data(), of.size(), value, value_max, ret_size);
        });
    }
    bool contains(transaction &tx, key of) const {
        size_t size;
        return detail::found(shelf_map_get(tx.get(), handle_, of.data(), of.size(), nullptr, 0, &size));
    }
    void put(transaction &tx, key of, bytes value) const {
        detail::check(shelf_map_put(tx.get(), handle_, of.data(), of.size(), value.data(), value.size()));
    }
    /* false: there was no such key. */
    bool erase(transaction &tx, key of) const {
        return detail::found(shelf_map_delete(tx.get(), handle_, of.data(), of.size()));
    }

    /* Many at once, as C has it ... */
    void get_many(transaction &tx, shelf_map_item *items, size_t count) const {
        detail::check(shelf_map_get_many(tx.get(), handle_, items, count));
    }
    /* ... and typed: values[i] is that of the i-th key. */
    template <class T, class Keys>
    void get_many(transaction &tx, const Keys &keys, std::vector<std::optional<T>> &ret_values) const {
        static_assert(detail::is_plain<T>, "only values that are nothing but their bytes can be stored");
        static_assert(std::is_lvalue_reference_v<decltype(*std::begin(keys))>,
                      "the keys have to be there while they are looked up");
        ret_values.clear();
        for (auto next = std::begin(keys); next != std::end(keys);) {
            shelf_map_item items[batch];
            T values[batch];
            size_t count = 0;
            for (; count < batch && next != std::end(keys); ++count, ++next) {
                const key of(*next);
                items[count] = {of.data(), of.size(), &values[count], sizeof(T), 0, SHELF_OK};
            }
            get_many(tx, items, count);
            for (size_t i = 0; i < count; i++) {
                if (items[i].result == SHELF_OK && items[i].value_size != sizeof(T))
                    bytes::size_mismatch(items[i].value_size, sizeof(T));
                ret_values.push_back(items[i].result == SHELF_OK ? std::optional<T>(values[i])
                                                                 : std::nullopt);
            }
        }
    }
    template <class T, class Keys>
    std::vector<std::optional<T>> get_many(transaction &tx, const Keys &keys) const {
        std::vector<std::optional<T>> values;
        get_many(tx, keys, values);
        return values;
    }

    /* for (const auto &[key, value] : map.entries(tx)). Erasing on the way is fine, putting is not. */
    entry_range entries(transaction &tx) const;

    uint64_t count(transaction &tx) const {
        uint64_t number;
        detail::check(shelf_map_count(tx.get(), handle_, &number));
        return number;
    }
    void verify(transaction &tx) const { detail::check(shelf_map_verify(tx.get(), handle_)); }

  private:
    static constexpr size_t batch = 32; /* lookups that overlap */

    shelf_map handle_{};
};

class map::entry_range {
  public:
    entry_range(transaction &tx, shelf_map handle) : tx_(&tx), handle_(handle) {}

    detail::iterator<entry_range> begin() { return detail::iterator<entry_range>(this); }
    detail::end end() const noexcept { return {}; }

    bool step() {
        for (;;) {
            shelf_map_cursor before = cursor_;
            size_t key_size, value_size;
            if (!detail::found(shelf_map_next(tx_->get(), handle_, &cursor_, key_.data(), key_.size(),
                                              &key_size, value_.data(), value_.size(), &value_size)))
                return false;
            if (key_size <= key_.size() && value_size <= value_.size()) {
                item_ = {{key_.data(), key_size}, {value_.data(), value_size}};
                return true;
            }
            key_.resize(std::max(key_.size(), key_size));
            value_.resize(std::max(value_.size(), value_size));
            cursor_ = before;
        }
    }
    const entry &item() const noexcept { return item_; }

  private:
    transaction *tx_;
    shelf_map handle_;
    shelf_map_cursor cursor_{};
    std::string key_ = std::string(15, '\0'), value_ = std::string(15, '\0'); /* as large as any so far */
    entry item_;
};

inline map::entry_range map::entries(transaction &tx) const {
    return {tx, handle_};
}

/* ---- Stream ------------------------------------------------------------------------------------------------------- */

class stream {
  public:
    struct record {
        uint64_t position = 0, time_ms = 0;
        std::string bytes{};
    };
    struct bounds_type {
        uint64_t first, next; /* of the oldest record kept, of the next append */
    };
    class record_range;

    stream() noexcept = default;
    explicit stream(shelf_stream handle) noexcept : handle_(handle) {}

    static stream create(transaction &tx, shelf_region in, std::string_view name,
                         const stream_options &kept = {}) {
        stream made;
        detail::check(shelf_stream_create(tx.get(), in, detail::name(name), &kept, &made.handle_));
        return made;
    }
    static std::optional<stream> open(transaction &tx, shelf_region in, std::string_view name) {
        stream opened;
        if (!detail::found(shelf_stream_open(tx.get(), in, detail::name(name), &opened.handle_)))
            return std::nullopt;
        return opened;
    }
    static stream open_or_create(transaction &tx, shelf_region in, std::string_view name,
                                 const stream_options &kept = {}) {
        std::optional<stream> opened = open(tx, in, name);
        return opened ? *opened : create(tx, in, name, kept);
    }
    static bool drop(transaction &tx, shelf_region in, std::string_view name) {
        return detail::found(shelf_stream_drop(tx.get(), in, detail::name(name)));
    }

    shelf_stream get() const noexcept { return handle_; }

    /* Returns the record's position. */
    uint64_t append(transaction &tx, uint64_t time_ms, bytes from) const {
        uint64_t position;
        detail::check(shelf_stream_append(tx.get(), handle_, time_ms, from.data(), from.size(), &position));
        return position;
    }
    /* Nothing at or past the end. What retention has removed is EXPIRED. */
    std::optional<record> read(transaction &tx, uint64_t position) const {
        record found;
        if (!read(tx, position, found))
            return std::nullopt;
        return found;
    }
    /* Into a record that keeps its memory from call to call. */
    bool read(transaction &tx, uint64_t position, record &ret_record) const {
        ret_record.position = position;
        return detail::fetch(ret_record.bytes, [&](char *data, size_t size_max, size_t *ret_size) {
            return shelf_stream_read(tx.get(), handle_, position, data, size_max, ret_size,
                                     &ret_record.time_ms);
        });
    }
    /* for (const auto &record : stream.records(tx)): from `first`, or the oldest kept if that is newer, to the end. */
    record_range records(transaction &tx, uint64_t first = 0) const;

    bounds_type bounds(transaction &tx) const {
        bounds_type now;
        detail::check(shelf_stream_bounds(tx.get(), handle_, &now.first, &now.next));
        return now;
    }
    void trim(transaction &tx, uint64_t position) const {
        detail::check(shelf_stream_trim(tx.get(), handle_, position));
    }
    void verify(transaction &tx) const { detail::check(shelf_stream_verify(tx.get(), handle_)); }

  private:
    shelf_stream handle_{};
};

class stream::record_range {
  public:
    record_range(transaction &tx, const stream &of, uint64_t first)
        : tx_(&tx), stream_(of), next_(std::max(first, of.bounds(tx).first)) {}

    detail::iterator<record_range> begin() { return detail::iterator<record_range>(this); }
    detail::end end() const noexcept { return {}; }

    bool step() { return stream_.read(*tx_, next_++, record_); }
    const record &item() const noexcept { return record_; }

  private:
    transaction *tx_;
    stream stream_;
    uint64_t next_;
    record record_;
};

inline stream::record_range stream::records(transaction &tx, uint64_t first) const {
    return {tx, *this, first};
}

} // namespace shelf

#endif
