// SPDX-License-Identifier: Apache-2.0
/*
 * service_call.c: requests through the ring, and how their answers find back.
 *
 *     post, call -> unsent -> [ring] -> sent -> reply -> answered -> done(), or the waiting thread
 *
 * One thread at a time is the *receiver*: it takes replies from the ring and packets from the socket, for all. A thread that waits
 * becomes it if nobody is; when it has what it waited for, it passes that on to another one that waits, or, if only
 * asynchronous requests are left, to the service's own thread. So a program with one thread has no hand-over at all.
 *
 * A receiver spins before it sleeps: as long as answers take lately, if that is short; the node's answer follows upon one write to the
 * disk, and being woken up costs half as much again. It yields meanwhile, so nobody who could do something waits for it.
 */
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/detail.h"
#include "client/service_state.h"
#include "world/world.h"

enum {
    SPIN_MAX_NS = 200000,
    SPINS_A_LOOK = 16, /* at the clock */
};

/* ---- Pendings ----------------------------------------------------------------------------------------------------- */

static struct pending *pending_take(struct service *service, struct node_request *request,
                                    struct waiter *waiter) {
    struct pending *pending = service->pending_free;
    if (pending)
        service->pending_free = pending->next_free;
    else if (service->pending_used < PENDINGS_MAX)
        pending = &service->pendings[service->pending_used++];
    else
        return NULL;
    uint32_t place = (uint32_t)(pending - service->pendings);
    *pending = (struct pending){
        .state = PENDING_UNSENT, .generation = pending->generation + 1, .request = request, .waiter = waiter};
    pending->cargo = (struct guest_cargo){
        .tag = (uint64_t)pending->generation << 32 | place, .bytes = request->bytes, .size = request->size};
    list_init(&pending->link);
    list_push_back(&service->unsent, &pending->link);
    service->async_count += !waiter;
    return pending;
}

static void pending_give(struct service *service, struct pending *pending) {
    list_unlink(&pending->link);
    service->async_count -= !pending->waiter && pending->request;
    pending->state = PENDING_FREE;
    pending->request = NULL;
    pending->next_free = service->pending_free;
    service->pending_free = pending;
}

static struct pending *pending_of(struct service *service, uint64_t tag) {
    uint32_t place = (uint32_t)tag;
    struct pending *pending = place < service->pending_used ? &service->pendings[place] : NULL;
    return pending && pending->generation == tag >> 32 && pending->state == PENDING_SENT ? pending : NULL;
}

void service_pump(struct service *service) {
    bool moved = false;
    for (struct list *link; (link = list_first(&service->unsent)) != NULL;) {
        struct pending *pending = LIST_ENTRY(link, struct pending, link);
        size_t before = pending->cargo.done;
        bool all = guest_put(service->guest, &pending->cargo);
        moved |= pending->cargo.done > before;
        pending->state = pending->cargo.done > 0 ? PENDING_PARTLY : PENDING_UNSENT;
        if (!all)
            break;
        pending->state = PENDING_SENT;
        list_unlink(link);
        list_push_back(&service->sent, link);
    }
    if (moved)
        guest_bell(service->guest);
}

void pendings_resend(struct service *service) {
    for (struct list *link; (link = list_last(&service->sent)) != NULL;) {
        struct pending *pending = LIST_ENTRY(link, struct pending, link);
        list_unlink(link);
        list_push_front(&service->unsent, link);
        pending->again = true;
        if (!pending->request)
            pending_give(service, pending);
    }
    LIST_FOREACH(link, &service->unsent) {
        struct pending *pending = LIST_ENTRY(link, struct pending, link);
        pending->state = PENDING_UNSENT;
        pending->cargo.done = 0;
    }
}

/* A request that an earlier node may have executed is refused for certain only where its session was asked first: that it has
 * been here (OK), has not and never will (ABORTED), or has not and is in conflict now. Of other refusals nobody can tell (S1). */
static void reply_settle(bool again, const void *bytes, struct reply *reply) {
    const struct request_header *header = bytes;
    bool session = header->kind == REQUEST_SESSION_OPEN || header->kind == REQUEST_SESSION_EXPIRE ||
                   header->kind == REQUEST_SESSION_OUTCOME ||
                   header->kind == REQUEST_SESSION_KEEP; /* these may be done twice */
    if (again && !session && reply->result != SHELF_OK && reply->result != SHELF_CONFLICT &&
        reply->result != SHELF_ABORTED)
        *reply = (struct reply){.token = reply->token, .result = SHELF_UNKNOWN};
}

static void local_done_one(struct node_request *local) {
    struct pending *pending = LIST_ENTRY(local, struct pending, local);
    struct service *service = pending->service;
    struct node_request *request = pending->request;
    request->reply = local->reply;
    reply_settle(pending->again, request->bytes, &request->reply);
    pthread_mutex_lock(&service->mutex);
    pending_give(service, pending);
    pthread_mutex_unlock(&service->mutex);
    request->next = NULL;
    request->done(request);
}

/* In the thread that drives the node. */
static void local_done(struct node_request *first) {
    for (struct node_request *local = first, *next; local; local = next) {
        next = local->next;
        local_done_one(local);
    }
}

struct node_request *pendings_hand_over(struct service *service) {
    struct node_request *first = NULL, **last = &first;
    pendings_resend(service);
    for (struct list *link; (link = list_pop_front(&service->unsent)) != NULL;) {
        struct pending *pending = LIST_ENTRY(link, struct pending, link);
        pending->state = PENDING_LOCAL;
        if (pending->waiter)
            continue;
        pending->service = service;
        pending->local = (struct node_request){
            .bytes = pending->request->bytes, .size = pending->request->size, .done = local_done};
        *last = &pending->local;
        last = &pending->local.next;
    }
    return first;
}

/* ---- Receiving ---------------------------------------------------------------------------------------------------- */

/* Takes all replies there are. Asynchronous ones are left in a chain, for after the mutex. With the mutex. */
static bool replies_take(struct service *service, struct guest *guest, struct node_request **ret_done) {
    struct node_request **last = ret_done;
    struct reply reply;
    enum guest_news news;
    bool taken = false;
    while ((news = guest_reply_take(guest, &reply)) == GUEST_REPLY) {
        taken = true;
        struct pending *pending = pending_of(service, reply.token);
        if (!pending)
            return false; /* nobody asked for that */
        if (!pending->request) {
            pending_give(service, pending);
        } else if (pending->waiter) {
            pending->request->reply = reply;
            reply_settle(pending->again, pending->request->bytes, &pending->request->reply);
            list_unlink(&pending->link);
            pending->state = PENDING_ANSWERED;
            waiter_wake(pending->waiter);
        } else {
            struct node_request *request = pending->request;
            request->reply = reply;
            reply_settle(pending->again, request->bytes, &request->reply);
            request->next = NULL;
            *last = request;
            last = &request->next;
            pending_give(service, pending);
        }
    }
    if (taken) /* what is submitted may have waited for room among the replies */
        guest_bell(guest);
    return news == GUEST_NOTHING;
}

/* Everything that has come by the socket. With the mutex. False: the node is gone. */
static bool packets_take(struct service *service, struct guest *guest) {
    _Alignas(8) uint8_t packet[DOOR_MESSAGE_MAX];
    int fds[GUEST_FDS_MAX];
    ssize_t size;
    while ((size = guest_receive(guest, packet, sizeof(packet), fds)) > 0) {
        if (size > 1 && !ask_on_answer(service, packet, (size_t)size, fds))
            return false;
    }
    return size == 0;
}

bool service_take(struct service *service, struct guest *guest, struct node_request **ret_done) {
    return packets_take(service, guest) && replies_take(service, guest, ret_done);
}

/* How long it is worth to spin for an answer. */
static uint64_t spin_ns(const struct service *service) {
    return service->reply_ns > SPIN_MAX_NS / 2 ? 0 : service->reply_ns * 2;
}

static void reply_learn(struct service *service, uint64_t took_ns) {
    service->reply_ns =
        service->reply_ns ? (service->reply_ns * 7 + min_u64(took_ns, 4 * SPIN_MAX_NS)) / 8 : took_ns;
}

/* One round of the receiver. */
struct round {
    struct guest *guest;
    uint64_t full_tail; /* not 0: something waits for room in the ring as well */
    uint64_t spin_until_ns, until_ns;
    bool kickable; /* it is the service's thread */
};

static bool spin_for_news(const struct round *round) {
    do {
        for (uint32_t i = 0; i < SPINS_A_LOOK; i++) {
            if (guest_has_news(round->guest, round->full_tail))
                return true;
            (void)sched_yield();
        }
    } while (world_monotonic_ns() < round->spin_until_ns);
    return false;
}

/* Until there is something to look at, the time has come, or it was kicked. */
static void sleep_for_news(const struct service *service, const struct round *round) {
    struct pollfd fds[2] = {{.fd = round->guest->fd, .events = POLLIN},
                            {.fd = round->kickable ? service->kick_fd : -1, .events = POLLIN}};
    uint64_t now_ns = world_monotonic_ns();
    uint64_t left_ms = round->until_ns > now_ns ? (round->until_ns - now_ns) / 1000000 + 1 : 0;
    if (guest_sleep_begin(round->guest, round->full_tail))
        (void)poll(fds, 2, left_ms > INT_MAX ? -1 : (int)left_ms);
    if (fds[1].revents) /* what it is told of is looked at after each round */
        (void)!read(service->kick_fd, &(uint64_t){0}, sizeof(uint64_t));
    guest_sleep_end(round->guest);
}

/* With the mutex on entry and return, and without in between. */
static void receive(struct service *service, struct guest *guest, uint64_t begin_ns, uint64_t until_ns,
                    bool kickable) {
    const struct round round = {.guest = guest,
                                .full_tail = list_is_empty(&service->unsent) ? 0 : guest->submit_tail,
                                .spin_until_ns = min_u64(begin_ns + spin_ns(service), until_ns),
                                .until_ns = until_ns,
                                .kickable = kickable};
    pthread_mutex_unlock(&service->mutex);
    bool came = spin_for_news(&round);
    if (!came)
        sleep_for_news(service, &round);
    pthread_mutex_lock(&service->mutex);
    struct node_request *done = NULL;
    bool sane = (came || packets_take(service, guest)) && replies_take(service, guest, &done);
    if (sane && service->state == SERVICE_ATTACHED && service->guest == guest)
        service_pump(service);
    pthread_mutex_unlock(&service->mutex);
    node_requests_deliver(done);
    if (!sane)
        service_lost(service, guest);
    pthread_mutex_lock(&service->mutex);
}

static bool receivable(const struct service *service, const struct guest *guest) {
    return service->state == SERVICE_ATTACHED && service->guest == guest && !service->closing;
}

static struct guest *receiver_begin(struct service *service) {
    service->receiving = true;
    service->in_use = service->guest;
    guest_sleep_end(service->guest); /* it may have rested */
    return service->guest;
}

static void receiver_end(struct service *service) {
    service->receiving = false;
    service->in_use = NULL;
}

/* Somebody else may have to go on. Done by everyone who leaves: the one who is woken for it may have been answered, and leave
 * as well. */
static void receiver_pass(struct service *service) {
    if (service->receiving)
        return;
    struct list *next = list_first(&service->waiters);
    if (next)
        waiter_wake(LIST_ENTRY(next, struct waiter, link));
    else if (service->state == SERVICE_ATTACHED && service_polled(service)
                 ? !service_poll_rest(service)
                 : service->state != SERVICE_ATTACHED || service->async_count > 0)
        service_kick(service);
}

static void waiter_sleep(struct service *service, struct waiter *waiter, uint64_t left_ns) {
    atomic_store_explicit(&waiter->word, 0, memory_order_relaxed);
    list_push_back(&service->waiters, &waiter->link);
    pthread_mutex_unlock(&service->mutex);
    futex_wait(&waiter->word, 0, left_ns);
    pthread_mutex_lock(&service->mutex);
    list_unlink(&waiter->link);
}

bool service_await(struct service *service, struct waiter *waiter, bool (*done)(void *context), void *context,
                   uint64_t until_ns) {
    bool over;
    while (!(over = done(context))) {
        uint64_t now_ns = world_monotonic_ns();
        if (now_ns >= until_ns)
            break;
        if (service->state != SERVICE_ATTACHED || service->receiving) {
            waiter_sleep(service, waiter, until_ns - now_ns);
            continue;
        }
        struct guest *guest = receiver_begin(service);
        while (!done(context) && receivable(service, guest) && now_ns < until_ns) {
            receive(service, guest, now_ns, until_ns, false);
            now_ns = done(context) ? now_ns : world_monotonic_ns();
        }
        receiver_end(service);
    }
    receiver_pass(service);
    return over;
}

void service_receive_async(struct service *service) {
    if (service->receiving || service->state != SERVICE_ATTACHED)
        return;
    struct guest *guest = receiver_begin(service);
    while (service->async_count > 0 && receivable(service, guest) && !service_polled(service)) {
        uint64_t now_ns = world_monotonic_ns();
        receive(service, guest, now_ns, UINT64_MAX, true);
    }
    receiver_end(service);
    receiver_pass(service);
}

/* ---- Requests ----------------------------------------------------------------------------------------------------- */

static bool pending_over(void *context) {
    const struct pending *pending = context;
    return pending->state == PENDING_ANSWERED || pending->state == PENDING_LOCAL;
}

static bool pending_not_partly(void *context) {
    const struct pending *pending = context;
    return pending->state != PENDING_PARTLY;
}

/* The deadline has passed. Half a request cannot be taken back: the rest has to follow, or the node has to go. */
static shelf_result pending_withdraw(struct service *service, struct pending *pending) {
    if (pending->state == PENDING_PARTLY)
        (void)service_await(service, pending->waiter, pending_not_partly, pending, UINT64_MAX);
    if (pending->state == PENDING_UNSENT && !pending->again) {
        pending_give(service, pending);
        if (service->state == SERVICE_ATTACHED) {
            detail_set("the node did not take the request in time");
            return SHELF_TIMEOUT;
        }
        detail_set("nobody serves: %s", service->fault);
        return SHELF_UNAVAILABLE;
    }
    if (pending->state == PENDING_SENT || pending->state == PENDING_UNSENT) {
        if (pending->state == PENDING_UNSENT)
            pending_give(service, pending);
        pending->request = NULL;
        pending->waiter = NULL;
        detail_set("the node has the request and did not answer in time");
        return SHELF_UNKNOWN;
    }
    return SHELF_OK; /* it is over after all */
}

/* With the mutex. The request belongs to this stack. */
static shelf_result call_through_ring(struct service *service, struct node_request *request,
                                      uint64_t until_ns, bool *ret_local, bool *ret_again) {
    struct waiter waiter;
    list_init(&waiter.link);
    struct pending *pending = pending_take(service, request, &waiter);
    if (!pending) {
        detail_set("%d requests are under way already", PENDINGS_MAX);
        return SHELF_UNAVAILABLE;
    }
    uint64_t begin_ns = world_monotonic_ns();
    if (service->state == SERVICE_ATTACHED)
        service_pump(service);
    shelf_result result = SHELF_OK;
    if (service_await(service, &waiter, pending_over, pending, until_ns))
        reply_learn(service, world_monotonic_ns() - begin_ns);
    else
        result = pending_withdraw(service, pending);
    if (result == SHELF_OK) {
        *ret_local = pending->state == PENDING_LOCAL;
        *ret_again = pending->again;
        pending_give(service, pending);
    }
    return result;
}

static uint32_t left_ms(uint64_t until_ns) {
    uint64_t now_ns = world_monotonic_ns();
    return until_ns > now_ns ? (uint32_t)((until_ns - now_ns) / 1000000 + 1) : 1;
}

shelf_result service_call(struct service *service, const void *bytes, size_t size, uint32_t deadline_ms,
                          struct reply *ret_reply) {
    struct node *node = atomic_load_explicit(&service->node, memory_order_acquire);
    if (node)
        return node_call(node, bytes, size, deadline_ms, ret_reply);
    uint64_t until_ns = world_monotonic_ns() + (uint64_t)deadline_ms * 1000000;
    struct node_request request = {.bytes = bytes, .size = size};
    bool local = false, again = false;
    pthread_mutex_lock(&service->mutex);
    shelf_result result = SHELF_OK;
    if (service->state == SERVICE_NODE)
        local = true;
    else
        result = call_through_ring(service, &request, until_ns, &local, &again);
    pthread_mutex_unlock(&service->mutex);
    if (result == SHELF_OK && local) {
        result = node_call(atomic_load(&service->node), bytes, size, left_ms(until_ns), &request.reply);
        reply_settle(again, bytes, &request.reply);
        if (result == SHELF_TIMEOUT && again)
            result = SHELF_UNKNOWN;
    }
    if (result == SHELF_OK)
        *ret_reply = request.reply;
    return result;
}

void service_post(struct service *service, struct node_request *request) {
    struct node *node = atomic_load_explicit(&service->node, memory_order_acquire);
    if (node) {
        node_post(node, request);
        return;
    }
    pthread_mutex_lock(&service->mutex);
    bool local = service->state == SERVICE_NODE;
    struct pending *pending = local ? NULL : pending_take(service, request, NULL);
    if (pending && service->state == SERVICE_ATTACHED) {
        service_pump(service);
        if (!service->receiving && !service_polled(service))
            service_kick(service);
    }
    pthread_mutex_unlock(&service->mutex);
    if (local) {
        node_post(atomic_load(&service->node), request);
    } else if (!pending) {
        request->reply = (struct reply){.result = SHELF_UNAVAILABLE};
        request->done(request);
    }
}
