// SPDX-License-Identifier: Apache-2.0
/*
 * node_drive.c: how requests get through the core: flat combining.
 *
 *     node_post, call_begin  ->  posted  ->  admit  ->  [record held]  ->  flight  ->  answered  ->  done()
 *
 * Whoever holds the core's lock is the driver and works for all. The lock is held for steps of the core only, never during
 * a system call: while a log write is under way, other threads admit their requests themselves.
 *
 *   V1  A request that was posted is admitted by its own thread, or by whoever held the lock when it came: after each
 *       release the holder looks at `posted` again, and a thread that found the lock taken tries it once more after
 *       posting. One of the two sees the other.
 *   V2  When the lock is released, a flight has a call that writes it, and a held record has a call that ends the hold. Whoever
 *       it falls to is running, or is told.
 *       The same holds for chores: whoever's step they came from, the background thread is told, even by itself.
 *   V3  answer() is called exactly once for each request, under the lock; done() once after that, without it, perhaps
 *       for others at the same time. A call's memory
 *       is not touched after its word became CALL_DONE (waking an address that nobody sleeps on any more does no harm).
 *
 * Which call writes the log? A write call takes 10 to 20 us less than the same write through io_uring, whose completions
 * come by way of a worker thread. And a thread that commits and finds the log idle has nothing else to do: all others
 * can get into the core meanwhile. So it calls write; so does the background thread, for commits that nobody waits for.
 * io_uring is worth it where one thread must wait for several things at once: the background thread while it has ios of
 * a checkpoint under way. (A program that asks for SHELF_BACKEND_URING has all records written through it.)
 *
 * A thread that brings the requests of others (node_drive: the door's) has duties as a committing thread does, and does them to the
 * end, since its next requests come out of the answers to these. While it writes it takes in nothing; what has come meanwhile
 * is admitted in one go afterwards and becomes the next record. (64 processes in a loop got as many commits a second
 * that way as 64 threads of the node's own program.)
 *
 * Why are records held back? Threads that commit in a loop come back in a burst after each record. Were the first one's
 * record begun at once, it would go alone and all others would wait for the next: two writes a round instead of one. So
 * the next record waits until as many requests have come as were answered lately (`target`), if that took less time
 * than a write in the past; at most as long as they keep coming, and a fraction of a write. If the target is missed, the
 * next records do not wait, more of them with each miss.
 */
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "node/node_state.h"

enum {
    HOLD_GAP_NS = 20000, /* nobody came for so long: nobody will */
    HOLD_MIN_NS = 25000, /* bounds of the hold in all */
    HOLD_MAX_NS = 200000,
    GATHER_FRESH_NS = 500000, /* a target older than that says nothing */
    SKIP_MAX = 64,
    LOCK_SPINS = 64,
};

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* ---- The lock ----------------------------------------------------------------------------------------------------- */

bool core_try(struct node *node) {
    uint32_t expected = 0;
    return atomic_load(&node->lock) == 0 && /* (V1 needs the order of all these) */
           atomic_compare_exchange_strong(&node->lock, &expected, 1);
}

void core_enter(struct node *node) {
    for (uint32_t i = 0; i < LOCK_SPINS; i++) {
        if (core_try(node)) {
            return;
        }
        pause_briefly();
    }
    while (atomic_exchange(&node->lock, 2) != 0) {
        futex_wait(&node->lock, 2, UINT64_MAX);
    }
}

static void core_release(struct node *node) {
    if (atomic_exchange(&node->lock, 0) == 2) {
        futex_wake(&node->lock, 1);
    }
}

/* ---- Chains and slots --------------------------------------------------------------------------------------------- */

static void chain_push(struct request_chain *chain, struct node_request *request) {
    request->next = NULL;
    if (chain->last) {
        chain->last->next = request;
    } else {
        chain->first = request;
    }
    chain->last = request;
}

static struct node_request *chain_pop(struct request_chain *chain) {
    struct node_request *request = chain->first;
    if (request) {
        chain->first = request->next;
        if (!chain->first) {
            chain->last = NULL;
        }
    }
    return request;
}

static void chain_remove(struct request_chain *chain, struct node_request *request) {
    struct request_chain rest = *chain;
    *chain = (struct request_chain){NULL, NULL};
    for (struct node_request *each; (each = chain_pop(&rest)) != NULL;) {
        if (each != request) {
            chain_push(chain, each);
        }
    }
}

static void post_push(struct node *node, struct node_request *request) {
    request->next = atomic_load_explicit(&node->posted, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&node->posted, &request->next, request)) {
    }
}

static uint64_t slot_take(struct node *node, struct node_request *request) {
    uint32_t place = node->slot_free;
    if (place == SLOTS_MAX) {
        return 0;
    }
    node->slot_free = node->slots[place].next_free;
    node->slots[place].request = request;
    return place + 1u;
}

static struct node_request *slot_give(struct node *node, uint64_t token) {
    ASSERT(token >= 1 && token <= SLOTS_MAX);
    struct slot *slot = &node->slots[token - 1];
    struct node_request *request = slot->request;
    slot->request = NULL;
    slot->next_free = node->slot_free;
    node->slot_free = (uint32_t)token - 1;
    return request;
}

/* ---- Answers ------------------------------------------------------------------------------------------------------ */

static void call_done(struct node_request *first) {
    for (struct node_request *request = first, *next; request; request = next) {
        next = request->next;
        _Atomic uint32_t *word = &LIST_ENTRY(request, struct call, request)->word;
        if (atomic_exchange(word, CALL_DONE) == CALL_ASLEEP) {
            futex_wake(word, 1);
        }
    }
}

static struct call *call_of(struct node_request *request) {
    return request->done == call_done ? LIST_ENTRY(request, struct call, request) : NULL;
}

/* The call has nothing to do with the core any more: its duties are free for others. */
static void call_detach(struct node *node, struct call *call) {
    list_unlink(&call->link);
    if (node->flight_call == call) {
        node->flight_call = NULL;
    }
    if (node->hold_call == call) {
        node->hold_call = NULL;
    }
}

static void answer(struct node *node, struct node_request *request, const struct reply *reply) {
    struct call *call = call_of(request);
    if (call) {
        call_detach(node, call);
    }
    request->state = REQUEST_ANSWERED;
    request->reply = *reply;
    chain_push(&node->answered, request);
}

void node_requests_deliver(struct node_request *answered) {
    while (answered) {
        struct node_request *first = answered, *last = first;
        while (last->next && last->next->done == first->done) {
            last = last->next;
        }
        answered = last->next;
        last->next = NULL;
        first->done(first);
    }
}

static void answer_result(struct node *node, struct node_request *request, shelf_result result,
                          enum reply_reason reason) {
    struct reply reply = {.result = (uint32_t)result, .reason = (uint32_t)reason};
    answer(node, request, &reply);
}

/* Nothing comes out of a stopped core any more. What it had may be durable or not; the rest never got in. */
void node_stop(struct node *node) {
    fault_describe(node);
    node->stopped = true;
    for (uint32_t place = 0; place < SLOTS_MAX; place++) {
        struct node_request *request = node->slots[place].request;
        if (request) {
            node->slots[place].request = NULL;
            answer_result(node, request, SHELF_UNKNOWN, REASON_NODE_STOPPED);
        }
    }
    for (struct node_request *request; (request = chain_pop(&node->refused)) != NULL;) {
        answer_result(node, request, SHELF_IO, REASON_NODE_STOPPED);
    }
    node->refused_commits = 0;
    atomic_store(&node->over, 1);
    futex_wake(&node->over, INT_MAX);
}

/* ---- Steps -------------------------------------------------------------------------------------------------------- */

static void io_take(struct node *node, struct io *io) {
    if (node->opened && io->urgent && io->kind == IO_WRITE && io->file.kind == FILE_LOG && !node->flight) {
        node->flight = io;
        node->flight_call = NULL;
        node->flight_begun = false;
        node->flying = atomic_load_explicit(&node->building, memory_order_relaxed);
        atomic_store_explicit(&node->building, 0, memory_order_relaxed);
        return;
    }
    io->world = NULL;
    if (node->chores.last) {
        node->chores.last->world = io;
    } else {
        node->chores.first = io;
    }
    node->chores.last = io;
    node->chores_new = true;
}

void node_step(struct node *node, struct event *event, bool hold) {
    struct effects *effects = &node->effects;
    event->now_ms = world_clock_ms();
    event->hold_record = hold;
    if (event->kind == EVENT_TICK) {
        event->steady_ms = world_monotonic_ns() / 1000000;
    }
    core_step(node->core, event, effects);
    node->opened |= effects->opened;
    if (node->cluster) {
        cluster_effects(node);
    }
    wakes_note(node);
    for (uint32_t i = 0; i < effects->reply_count; i++) {
        struct node_request *request = slot_give(node, effects->replies[i].token);
        if (request) {
            answer(node, request, &effects->replies[i]);
        }
    }
    for (uint32_t i = 0; i < effects->io_count; i++) {
        io_take(node, effects->ios[i]);
    }
    bool held = hold && !node->flight && core_work_pending(node->core) && !core_log_busy(node->core);
    if (!held) {
        node->hold_call = NULL;
    }
    atomic_store_explicit(&node->held, held, memory_order_relaxed);
    if (effects->closed && !node->closed) {
        node->closed = true;
        atomic_store(&node->over, 1);
        futex_wake(&node->over, INT_MAX);
    }
    if ((effects->stopped || effects->restart) && !node->stopped) {
        node->renewed = effects->restart;
        node_stop(node);
    }
}

/* ---- Holding records back ----------------------------------------------------------------------------------------- */

static bool gather_waits(const struct node *node) {
    const struct gather *gather = &node->gather;
    uint32_t target = atomic_load_explicit(&gather->target, memory_order_relaxed);
    return target > 1 && atomic_load_explicit(&gather->skip, memory_order_relaxed) == 0 &&
           atomic_load_explicit(&node->building, memory_order_relaxed) < target &&
           world_monotonic_ns() - gather->end_ns < GATHER_FRESH_NS;
}

/* After a write: those that it answered may come back, those that wait already are sure. */
static void gather_begin(struct node *node, uint64_t begin_ns) {
    struct gather *gather = &node->gather;
    uint32_t building = atomic_load_explicit(&node->building, memory_order_relaxed);
    gather->end_ns = world_monotonic_ns();
    uint64_t flight_ns = atomic_load_explicit(&gather->flight_ns, memory_order_relaxed);
    atomic_store_explicit(&gather->flight_ns, (flight_ns * 7 + (gather->end_ns - begin_ns)) / 8,
                          memory_order_relaxed);
    atomic_store_explicit(&gather->target, node->flying + building, memory_order_relaxed);
    uint32_t skip = atomic_load_explicit(&gather->skip, memory_order_relaxed);
    atomic_store_explicit(&gather->skip, skip - (skip > 0), memory_order_relaxed);
}

/* The hold has ended because of time. A quarter may be late without harm. */
static void gather_miss(struct node *node) {
    struct gather *gather = &node->gather;
    uint32_t target = atomic_load_explicit(&gather->target, memory_order_relaxed);
    if (atomic_load_explicit(&gather->skip, memory_order_relaxed) > 0 || target <= 1) {
        return;
    }
    if (atomic_load_explicit(&node->building, memory_order_relaxed) >= target - target / 4) {
        gather->misses = 0;
        return;
    }
    gather->misses++;
    uint32_t skip = gather->misses >= 6 ? SKIP_MAX : 1u << gather->misses;
    atomic_store_explicit(&gather->skip, skip, memory_order_relaxed);
}

struct hold_clock {
    uint64_t begin_ns, last_ns, limit_ns;
    uint32_t seen; /* requests in the record at `last_ns` */
};

static struct hold_clock hold_clock(const struct node *node) {
    uint64_t flight_ns = atomic_load_explicit(&node->gather.flight_ns, memory_order_relaxed);
    uint64_t now_ns = world_monotonic_ns();
    return (struct hold_clock){
        .begin_ns = now_ns,
        .last_ns = now_ns,
        .limit_ns = min_u64(max_u64(flight_ns * 3 / 4, HOLD_MIN_NS), HOLD_MAX_NS),
        .seen = atomic_load_explicit(&node->building, memory_order_relaxed),
    };
}

/* Nobody came for a while, or it took too long. */
static bool hold_over(const struct node *node, struct hold_clock *clock) {
    uint64_t now_ns = world_monotonic_ns();
    uint32_t building = atomic_load_explicit(&node->building, memory_order_relaxed);
    if (building != clock->seen) {
        clock->seen = building;
        clock->last_ns = now_ns;
    }
    return now_ns - clock->last_ns > HOLD_GAP_NS || now_ns - clock->begin_ns > clock->limit_ns;
}

/* Lets others run until the record has begun, nobody came for a while, or it took too long. */
static void hold_wait(struct node *node) {
    struct hold_clock clock = hold_clock(node);
    while (atomic_load_explicit(&node->held, memory_order_relaxed)) {
        (void)sched_yield();
        if (hold_over(node, &clock)) {
            return;
        }
    }
}

static void hold_end(struct node *node) {
    node_step(node, &(struct event){.kind = EVENT_GO_ON}, false);
}

/* ---- Admission ---------------------------------------------------------------------------------------------------- */

static bool is_commit(const struct node_request *request) {
    const struct request_header *header = request->bytes;
    return header && header->kind == REQUEST_COMMIT;
}

static void refuse(struct node *node, struct node_request *request) {
    request->state = REQUEST_REFUSED;
    node->refused_commits += is_commit(request);
    chain_push(&node->refused, request);
}

/* `more`: another one follows at once. */
static void admit(struct node *node, struct node_request *request, bool more) {
    if (request->state == REQUEST_WITHDRAWN) {
        return;
    }
    if (node->stopped) {
        answer_result(node, request, SHELF_IO, REASON_NODE_STOPPED);
        return;
    }
    node->told_background |= node->dozing;
    node->dozing = false;
    uint64_t token = node->refused_commits > 0 && is_commit(request) ? 0 : slot_take(node, request);
    if (token == 0) {
        refuse(node, request);
        return;
    }
    struct call *call = call_of(request);
    if (call) {
        list_push_back(&node->callers, &call->link);
    }
    request->state = REQUEST_ADMITTED;
    request->reply.token = token;
    uint32_t building = atomic_load_explicit(&node->building, memory_order_relaxed);
    atomic_store_explicit(&node->building, building + 1, memory_order_relaxed);
    struct event event = {.kind = request->bytes   ? EVENT_SUBMIT
                                  : request->fresh ? EVENT_READ
                                                   : EVENT_CHECKPOINT,
                          .request = request->bytes,
                          .request_size = request->size,
                          .token = token,
                          .credentials = request->credentials};
    node_step(node, &event, more || (!node->flight && gather_waits(node)));
    bool refused = node->effects.refused;
    if (refused || request->state == REQUEST_ANSWERED || !request->bytes) { /* it is not in the record */
        building = atomic_load_explicit(&node->building, memory_order_relaxed);
        atomic_store_explicit(&node->building, building - (building > 0), memory_order_relaxed);
    }
    if (refused) {
        (void)slot_give(node, token);
        if (call) {
            call_detach(node, call);
        }
        refuse(node, request);
        if (node->held) { /* full: the record has nothing to wait for */
            hold_end(node);
        }
    }
}

#define PREFETCH_BYTES 512u /* of a request, at most */

/* It was written by another processor, so its bytes are far away. */
static void request_prefetch(const struct node_request *request) {
    for (size_t at = 0; at < min_u64(request->size, PREFETCH_BYTES); at += LINE_SIZE) {
        __builtin_prefetch((const uint8_t *)request->bytes + at);
    }
}

static void posted_admit(struct node *node, bool more) {
    struct node_request *newest = atomic_load_explicit(&node->posted, memory_order_relaxed)
                                      ? atomic_exchange(&node->posted, NULL)
                                      : NULL;
    struct node_request *oldest = NULL;
    while (newest) {
        struct node_request *next = newest->next;
        request_prefetch(newest);
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct node_request *next = oldest->next;
        admit(node, oldest, next != NULL || more);
        oldest = next;
    }
}

/* An io has ended: there may be room now. */
static void refused_admit(struct node *node) {
    struct request_chain rest = node->refused;
    node->refused = (struct request_chain){NULL, NULL};
    node->refused_commits = 0;
    for (struct node_request *request; (request = chain_pop(&rest)) != NULL;) {
        admit(node, request, rest.first != NULL); /* behind the first one refused, all commits are */
    }
}

void refused_retry(struct node *node) {
    if (node->refused.first) {
        refused_admit(node);
    }
}

void node_io_done(struct node *node, struct io *io) {
    node_step(node, &(struct event){.kind = EVENT_IO_DONE, .io = io}, node->held);
    refused_retry(node);
}

/* ---- Duties ------------------------------------------------------------------------------------------------------- */

/* Who does it: the thread that asks, if it has to wait anyway; else the thread that has waited longest; else the
 * background thread. */
static struct call *duty_take(struct node *node, struct call *self) {
    if (self && self->request.state == REQUEST_ADMITTED) {
        return self;
    }
    struct list *oldest = list_first(&node->callers);
    if (!oldest) {
        node->told_background = true;
        return &node->background;
    }
    struct call *call = LIST_ENTRY(oldest, struct call, link);
    if (atomic_exchange(&call->word, CALL_TOLD) == CALL_ASLEEP) {
        node->told = &call->word;
    }
    return call;
}

/* V2 */
static enum duty duties_assign(struct node *node, struct call *self) {
    if (node->flight && !node->flight_begun && !node->stopped) {
        if (!node->flight_call) {
            node->flight_call = duty_take(node, self);
        }
        if (self && node->flight_call == self) {
            self->io = node->flight;
            node->flight_begun = true;
            return DUTY_FLY;
        }
    }
    if (node->held && !node->stopped) {
        if (!node->hold_call) {
            node->hold_call = duty_take(node, self);
        }
        if (self && node->hold_call == self) {
            return DUTY_HOLD;
        }
    }
    return DUTY_NONE;
}

enum duty core_leave(struct node *node, struct call *self) {
    enum duty duty = DUTY_NONE;
    do {
        posted_admit(node, false);
        if (node->more) {
            cluster_go_on_more(node);
        }
        if (node->held && !node->hold_call && !gather_waits(node) && self &&
            self->request.state == REQUEST_ADMITTED) {
            hold_end(node); /* it would be the first thing to do */
        }
        duty = duty == DUTY_FLY ? DUTY_FLY : duties_assign(node, self);
        struct request_chain answered = node->answered;
        node->answered = (struct request_chain){NULL, NULL};
        _Atomic uint32_t *told = node->told;
        struct wakes wakes = {.count = node->wakes.count};
        memcpy(wakes.regions, node->wakes.regions, wakes.count * sizeof(wakes.regions[0]));
        node->wakes.count = 0;
        bool tell = node->told_background || node->chores_new;
        node->told = NULL;
        node->told_background = node->chores_new = false;
        core_release(node);

        if (told) {
            futex_wake(told, 1);
        }
        wakes_do(node, &wakes); /* before the answers: these may be many, and each may cost a system call */
        if (tell) {             /* itself too: it took its chores before it did its duty, and these are new */
            atomic_store_explicit(&node->background_told, true, memory_order_relaxed);
        }
        if (tell && self != &node->background) {
            io_queue_ring(node->queue);
        }
        node_requests_deliver(answered.first);
    } while (atomic_load(&node->posted) && core_try(node)); /* V1 */
    return duty;
}

/* Does it stay, whatever is answered? */
static bool has_time(const struct call *call) {
    return call->request.done != call_done;
}

/* After the io of a flight: the core hears of it. If somebody else is going to write the next record and has to be woken
 * for it, the record need not begin before it is awake. */
void flight_end(struct node *node, const struct call *self, struct io *io, uint64_t begin_ns) {
    ASSERT(node->flight == io && node->flight_begun);
    node->flight = NULL;
    node->flight_call = NULL;
    if (node->stopped) {
        return;
    }
    posted_admit(node, false);
    gather_begin(node, begin_ns);
    bool others = !has_time(self) && !list_is_empty(&node->callers);
    node_step(node, &(struct event){.kind = EVENT_IO_DONE, .io = io}, others || gather_waits(node));
    refused_retry(node);
}

static void fly(struct node *node, struct call *self) {
    struct io *io = self->io;
    uint64_t begin_ns = world_monotonic_ns();
    if (node->log_queue) {
        io_queue_start(node->log_queue, io);
        while (!io_queue_wait(node->log_queue, -1)) {
        }
    } else {
        world_run(node->world, io);
    }
    core_enter(node);
    flight_end(node, self, io, begin_ns);
}

/* (A stale look does no harm.) */
static bool hold_makes_sense(const struct node *node) {
    return atomic_load_explicit(&node->gather.skip, memory_order_relaxed) == 0 &&
           atomic_load_explicit(&node->building, memory_order_relaxed) <
               atomic_load_explicit(&node->gather.target, memory_order_relaxed);
}

/* Enters the core. */
static void hold_finish(struct node *node, const struct call *self) {
    core_enter(node);
    if (node->held && node->hold_call == self) {
        gather_miss(node);
        hold_end(node);
    }
}

static void hold(struct node *node, const struct call *self) {
    if (hold_makes_sense(node)) {
        hold_wait(node);
    }
    hold_finish(node, self);
}

void duty_do(struct node *node, struct call *self, enum duty duty) {
    while (duty != DUTY_NONE) {
        if (duty == DUTY_FLY) {
            fly(node, self);
        } else {
            hold(node, self);
        }
        duty = core_leave(node, self);
    }
}

/* ---- Submitting --------------------------------------------------------------------------------------------------- */

static enum duty submit(struct node *node, struct node_request *request, struct call *self) {
    request->state = REQUEST_POSTED;
    if (core_try(node)) {
        posted_admit(node, true);
        admit(node, request, false);
        return core_leave(node, self);
    }
    post_push(node, request);
    return core_try(node) ? core_leave(node, self) : DUTY_NONE; /* V1 */
}

void node_post(struct node *node, struct node_request *request) {
    (void)submit(node, request, NULL);
}

/* ---- Drivers ------------------------------------------------------------------------------------------------------ */

struct node_driver *node_driver_open(struct node *node, struct node_request *(*more)(void *context),
                                     void *context) {
    struct node_driver *driver = calloc(1, sizeof(*driver));
    if (driver) {
        driver->node = node;
        driver->more = more;
        driver->context = context;
        driver->call.request.state = REQUEST_ADMITTED; /* it has time */
        list_init(&driver->call.link);
    }
    return driver;
}

void node_driver_close(struct node_driver *driver) {
    free(driver);
}

/* What it costs to admit requests. The clock is read once for all in a row that are on the same account. */
struct meter {
    uint64_t *account;
    uint64_t begin_ns, run_begin_ns;
};

static void meter_begin(struct meter *meter, uint64_t *account) {
    meter->account = account;
    meter->begin_ns = account ? world_monotonic_ns() : 0;
    meter->run_begin_ns = account ? world_thread_ns() : 0;
}

/* No more than the thread has run: it may have been put aside. */
static void meter_end(struct meter *meter) {
    enum { LONG_NS = 50000 }; /* shorter than that, it was not */
    if (meter->account) {
        uint64_t took_ns = world_monotonic_ns() - meter->begin_ns;
        *meter->account +=
            took_ns < LONG_NS ? took_ns : min_u64(took_ns, world_thread_ns() - meter->run_begin_ns);
    }
}

/* Unlike a committing thread it waits for the core: to post would be to leave its work to somebody else. */
static enum duty driver_submit(struct node_driver *driver, struct node_request *first) {
    struct node *node = driver->node;
    struct meter meter = {NULL, 0, 0};
    core_enter(node);
    posted_admit(node, first != NULL);
    while (first) {
        struct node_request *next = first->next;
        if (first->cost_ns != meter.account) {
            meter_end(&meter);
            meter_begin(&meter, first->cost_ns);
        }
        first->state = REQUEST_POSTED;
        admit(node, first, next != NULL);
        first = next;
    }
    meter_end(&meter);
    return core_leave(node, &driver->call);
}

/* As hold() and hold_wait(), but those for whom the record is held back come through this thread. */
static enum duty driver_hold(struct node_driver *driver) {
    struct node *node = driver->node;
    struct hold_clock clock = hold_clock(node);
    while (atomic_load_explicit(&node->held, memory_order_relaxed) && hold_makes_sense(node)) {
        struct node_request *first = driver->more(driver->context);
        enum duty duty = first ? driver_submit(driver, first) : DUTY_HOLD;
        if (duty != DUTY_HOLD) {
            return duty;
        }
        if (hold_over(node, &clock)) {
            break;
        }
        (void)sched_yield();
    }
    hold_finish(node, &driver->call);
    return core_leave(node, &driver->call);
}

void node_drive(struct node_driver *driver, struct node_request *first) {
    enum duty duty = driver_submit(driver, first);
    while (duty != DUTY_NONE) {
        if (duty == DUTY_FLY) {
            fly(driver->node, &driver->call);
            duty = core_leave(driver->node, &driver->call);
        } else {
            duty = driver_hold(driver);
        }
    }
}

/* ---- Calls -------------------------------------------------------------------------------------------------------- */

/* Sleeps until the word changes or the deadline has passed; false then. */
static bool call_sleep(struct call *call, uint64_t deadline_ns) {
    uint64_t left_ns = UINT64_MAX;
    if (deadline_ns != UINT64_MAX) {
        uint64_t now_ns = world_monotonic_ns();
        if (now_ns >= deadline_ns) {
            return false;
        }
        left_ns = deadline_ns - now_ns;
    }
    uint32_t expected = CALL_AWAKE;
    if (atomic_compare_exchange_strong(&call->word, &expected, CALL_ASLEEP)) {
        futex_wait(&call->word, CALL_ASLEEP, left_ns);
        expected = CALL_ASLEEP;
        (void)atomic_compare_exchange_strong(&call->word, &expected, CALL_AWAKE);
    }
    return true;
}

void call_begin(struct node *node, struct call *call, const void *bytes, size_t size) {
    *call = (struct call){.request = {.bytes = bytes, .size = size, .done = call_done}};
    list_init(&call->link);
    duty_do(node, call, submit(node, &call->request, call));
}

bool call_wait(struct node *node, struct call *call, uint64_t deadline_ns) {
    for (;;) {
        uint32_t word = atomic_load(&call->word);
        if (word == CALL_DONE) {
            return true;
        }
        if (word == CALL_TOLD) {
            if (atomic_compare_exchange_strong(&call->word, &word, CALL_AWAKE)) {
                core_enter(node);
                duty_do(node, call, core_leave(node, call));
            }
        } else if (!call_sleep(call, deadline_ns)) {
            return false;
        }
    }
}

shelf_result call_withdraw(struct node *node, struct call *call) {
    shelf_result result = SHELF_TIMEOUT;
    core_enter(node);
    switch ((enum request_state)call->request.state) {
    case REQUEST_POSTED:
        call->request.state = REQUEST_WITHDRAWN; /* core_leave() takes it out of `posted` */
        break;
    case REQUEST_REFUSED:
        node->refused_commits -= is_commit(&call->request);
        chain_remove(&node->refused, &call->request);
        break;
    case REQUEST_ADMITTED:
        node->slots[call->request.reply.token - 1].request =
            NULL; /* the place stays taken until the core answers */
        call_detach(node, call);
        call->request.state = REQUEST_WITHDRAWN;
        result = SHELF_UNKNOWN;
        break;
    case REQUEST_ANSWERED:
    case REQUEST_WITHDRAWN:
        result = SHELF_OK;
        break;
    }
    (void)core_leave(node, call);
    if (result == SHELF_OK) {
        (void)call_wait(node, call, UINT64_MAX);
    }
    return result;
}
