// SPDX-License-Identifier: Apache-2.0
/*
 * door_ring.c: what clients submit through their rings, and the replies. The node's half of wire/ring.h, whose rules it cites.
 *
 *     [ring] -> frame -> parcel -> node_drive() -> parcel_done() -> [reply ring], a bell if the client sleeps
 *
 *   R1  Taken requests are copied out before anything is decided on them; the frame's header is copied once, and what it says is
 *       kept in client.frame until the request is complete (G2).
 *   R2  taken - reply_head never exceeds the reply ring, so a reply always finds its place (G3). The client is asked for
 *       reply_head, and believed as far as that lies between what it said before and what was given (G1).
 *   R3  While a client's bytes under way are at its limit, its next request is not begun; one that is alone always is. So every
 *       client gets on, and the memory for each is bounded by the limit and one request.
 *   R4  A client waits for a reply or for room. Each reply looks at `client_sleeps`. Room alone is worth a look only if the ring was
 *       nearly full, or the request that is being taken is not complete: else it is room of a request whose reply follows.
 *
 *   R5  A client opens an unnamed session only while it has less than an eighth of what the table has free, or none. So each gets one as
 *       long as there are any, and none can take them from the others. (The core does the same for users: core/session.c, S6.)
 *
 *   R6  No client costs the others more than its share of this thread's time. What its requests cost beyond CHEAP_NS each is
 *       measured, and put on its tab; what all are due grows with time, divided by those who want something. Who is ahead by
 *       more than AHEAD_NS waits, unless nobody else wants anything. While there is nothing to do for others, those who wait are due it
 *       all. Who gives cheap requests only never waits for that.
 *
 * Taking turns: each active client, in a circle, gives at most TURN_REQUESTS and TURN_BYTES a round, and as many requests as cost
 * AHEAD_NS, going by what they have cost lately. So it is deficit round robin (Shreedhar, Varghese, "Efficient fair queueing using
 * deficit round robin", SIGCOMM 1995) with costs that are known afterwards only (as in surplus round robin: Adiseshu, Parulkar,
 * Varghese, SIGCOMM 1996). The deficit is paid off by time, not by rounds: clients wait for their answers before they come
 * again, and a round that finds only the expensive one would take all for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bits.h"
#include "door/door_state.h"
#include "world/world.h"

enum {
    TURN_REQUESTS = 64,
    ROUND_REQUESTS = 2048,
    ACTIVE_NS = 10000000, /* a client that has submitted nothing for so long is left to its bell */
    CHEAP_NS = 10000,
    AHEAD_NS = 1000000,
    QUIET_NS = 1000000,
};
#define TURN_BYTES ((uint64_t)256 << 10)

/* ---- Memory ------------------------------------------------------------------------------------------------------- */

int ring_make(struct client *client) {
    int fd = memfd_create("shelf-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -1;
    }
    void *memory = MAP_FAILED;
    if (ftruncate(fd, (off_t)RING_BYTES) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
        memory = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (memory == MAP_FAILED) {
        (void)close(fd);
        return -1;
    }
    (void)madvise(memory, RING_BYTES, MADV_DONTFORK);
    client->ring = memory;
    atomic_store_explicit(&client->ring->node_sleeps, 1, memory_order_relaxed); /* until the first bell */
    return fd;
}

void ring_unmap(struct client *client) {
    if (client->ring) {
        (void)munmap(client->ring, RING_BYTES);
        client->ring = NULL;
    }
}

/* ---- Sessions of clients ------------------------------------------------------------------------------------------ */

static void session_disown(struct client *client, uint64_t session) {
    for (uint32_t i = 0; i < client->owned_count; i++) {
        if (client->owned[i].session == session) {
            client->owned[i] = client->owned[--client->owned_count];
            return;
        }
    }
}

static void session_own(struct client *client, struct owned_session session) {
    session_disown(client, session.session); /* it may have said KEEP twice */
    if (client->owned_count == client->owned_max) {
        uint32_t max = client->owned_max * 2 + 4;
        struct owned_session *owned = realloc(client->owned, max * sizeof(*owned));
        if (!owned) {
            return; /* it will expire by itself, later */
        }
        client->owned = owned;
        client->owned_max = max;
    }
    client->owned[client->owned_count++] = session;
}

static enum request_kind parcel_kind(const struct parcel *parcel) {
    return (enum request_kind)((const struct request_header *)parcel->bytes)->kind;
}

static bool opens_unnamed(const struct parcel *parcel) {
    const struct session_request *request = (const struct session_request *)parcel->bytes;
    return parcel_kind(parcel) == REQUEST_SESSION_OPEN && parcel->size == sizeof(*request) &&
           request->name[0] == 0;
}

/* R5 */
static bool session_share_allows(struct client *client) {
    uint32_t free = SHELF_SESSIONS_MAX - node_session_count(client->node);
    (void)pthread_mutex_lock(&client->lock);
    uint32_t count = client->owned_count + client->opening;
    bool allows = count == 0 || count < free / 8;
    client->opening += allows;
    (void)pthread_mutex_unlock(&client->lock);
    return allows;
}

/* With the client's lock. *ret_orphan: the client has an unnamed session from now on, and there is nobody to use it. */
static void session_follow(struct client *client, const struct parcel *parcel,
                           struct owned_session *ret_orphan) {
    const struct session_request *request = (const struct session_request *)parcel->bytes;
    const struct reply *reply = &parcel->request.reply;
    bool sized = parcel->size == sizeof(*request) && !parcel->orphan;
    switch (parcel_kind(parcel)) {
    case REQUEST_COMMIT:
        if (reply->result == SHELF_EXPIRED && reply->reason == REASON_SESSION_UNKNOWN &&
            parcel->size >= sizeof(struct commit_request)) {
            session_disown(client, ((const struct commit_request *)parcel->bytes)->session);
        }
        break;
    case REQUEST_SESSION_OPEN:
    case REQUEST_SESSION_KEEP:
        client->opening -= sized && opens_unnamed(parcel) && reply->reason != REASON_SESSION_SHARE_PROGRAM;
        if (sized && reply->result == SHELF_OK && request->name[0] == 0 && reply->session != 0) {
            struct owned_session session = {reply->session, reply->holder};
            if (client->gone) {
                *ret_orphan = session;
            } else {
                session_own(client, session);
            }
        }
        break;
    case REQUEST_SESSION_EXPIRE:
        if (sized && (reply->result == SHELF_OK || reply->result == SHELF_EXPIRED)) {
            session_disown(client, request->session);
        }
        break;
    default:
        break;
    }
}

/* ---- Replies ------------------------------------------------------------------------------------------------------ */

/* G4: the other side sleeps or not; a full socket will wake it up as well. */
static void client_bell(struct client *client) {
    if (atomic_load(&client->ring->client_sleeps) != 0 && atomic_exchange(&client->ring->client_sleeps, 0)) {
        (void)send(client->socket.fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

/* With the client's lock. */
static void reply_give(struct client *client, const struct parcel *parcel) {
    uint64_t given = atomic_load_explicit(&client->given, memory_order_relaxed);
    struct reply *place = &client->ring->replies[given % RING_REPLIES]; /* R2 */
    memcpy(place, &parcel->request.reply, sizeof(*place));
    place->token = parcel->tag;
    atomic_store(&client->given, given + 1);
    atomic_store(&client->ring->reply_tail, given + 1); /* G3 */
}

static void parcel_account(struct client *client, const struct parcel *parcel) {
    (void)atomic_fetch_sub_explicit(&client->pending, 1, memory_order_relaxed);
    (void)atomic_fetch_sub(&client->pending_bytes, parcel->size);
    if (parcel_kind(parcel) == REQUEST_COMMIT && parcel->request.reply.result == SHELF_OK) {
        (void)atomic_fetch_add_explicit(&client->commits, 1, memory_order_relaxed);
    }
}

/* Frees the parcel, but not its reference to the client. Has the client been given a reply? */
static bool parcel_answered(struct parcel *parcel) {
    struct client *client = parcel->client;
    struct owned_session orphan = {0, 0};
    bool given = false;
    (void)pthread_mutex_lock(&client->lock);
    parcel_account(client, parcel);
    session_follow(client, parcel, &orphan);
    if (!client->gone && !parcel->orphan) {
        reply_give(client, parcel);
        given = true;
        if (atomic_load(&client->starved) && atomic_exchange(&client->starved, 0)) {
            bell_ring(client->door);
        }
    }
    (void)pthread_mutex_unlock(&client->lock);
    if (orphan.session != 0) {
        sessions_orphan(client, &orphan, 1);
    }
    free(parcel);
    return given;
}

static void client_tell(struct client *client) {
    (void)pthread_mutex_lock(&client->lock);
    if (!client->gone) {
        client_bell(client);
    }
    (void)pthread_mutex_unlock(&client->lock);
    client_release(client);
}

/* What is answered together rings once: who was woken by the first reply would sleep again before the second. */
static void parcel_done(struct node_request *first) {
    struct client *owed = NULL; /* a bell; one of its parcels' references is kept for that */
    for (struct node_request *request = first, *next; request; request = next) {
        struct parcel *parcel = LIST_ENTRY(request, struct parcel, request);
        struct client *client = parcel->client;
        next = request->next;
        if (owed && owed != client) {
            client_tell(owed);
            owed = NULL;
        }
        if (parcel_answered(parcel) && !owed) {
            owed = client;
        } else {
            client_release(client);
        }
    }
    if (owed) {
        client_tell(owed);
    }
}

static struct parcel *parcel_make(struct client *client, size_t size) {
    struct parcel *parcel = malloc(sizeof(*parcel) + size);
    if (!parcel) {
        return NULL;
    }
    *parcel = (struct parcel){.request = {.bytes = parcel->bytes, .size = size, .done = parcel_done},
                              .client = client,
                              .size = size};
    return parcel;
}

/* It is the node's from now on. */
static void parcel_begin(struct parcel *parcel) {
    struct client *client = parcel->client;
    (void)atomic_fetch_add_explicit(&client->references, 1, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&client->pending, 1, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&client->pending_bytes, parcel->size, memory_order_relaxed);
}

void sessions_orphan(struct client *client, const struct owned_session *owned, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        const struct session_request expire = {
            .header = {.size = sizeof(expire), .kind = REQUEST_SESSION_EXPIRE},
            .session = owned[i].session,
            .holder = owned[i].holder};
        struct parcel *parcel = parcel_make(client, sizeof(expire));
        if (!parcel) {
            return; /* they expire by themselves, later */
        }
        memcpy(parcel->bytes, &expire, sizeof(expire));
        parcel->orphan = true;
        parcel_begin(parcel);
        node_post(client->node, &parcel->request);
    }
}

/* ---- Shares (R6) -------------------------------------------------------------------------------------------------- */

void share_charge(struct client *client, uint64_t cost_ns) {
    if (cost_ns > CHEAP_NS) {
        client->tab_ns = max_u64(client->tab_ns, client->door->share_ns) + cost_ns - CHEAP_NS;
        client->charged_ns += cost_ns - CHEAP_NS;
    }
}

bool share_is_used(const struct client *client) {
    const struct door *door = client->door;
    return door->sharers > 1 && client->tab_ns > door->share_ns + AHEAD_NS;
}

/* What it has submitted so far is on its tab. */
static void share_settle(struct client *client) {
    uint64_t count = client->taken - client->taken_costed;
    if (count > 0) {
        uint64_t cost_ns = 2 * client->cost_ns; /* what was admitted is applied, too */
        client->usual_ns = (3 * client->usual_ns + cost_ns / count) / 4;
        share_charge(client, cost_ns - min_u64(cost_ns, (count - 1) * CHEAP_NS));
        client->cost_ns = 0;
        client->taken_costed = client->taken;
    }
}

static uint32_t turn_requests(const struct client *client) {
    return client->usual_ns <= AHEAD_NS / TURN_REQUESTS ? TURN_REQUESTS
                                                        : (uint32_t)max_u64(AHEAD_NS / client->usual_ns, 1);
}

/* When nobody has given anything for a while, those who wait have it all. (A moment without requests says nothing: the others are
 * about to read their answers.) */
static void shares_grow(struct door *door) {
    uint64_t now_ns = world_monotonic_ns(), from_ns = max_u64(door->share_time_ns, door->busy_ns + QUIET_NS);
    uint64_t quiet_ns = now_ns > from_ns ? now_ns - from_ns : 0;
    door->share_ns += (now_ns - door->share_time_ns - quiet_ns) / max_u64(door->sharers, 1) +
                      quiet_ns / max_u64(door->waiting, 1);
    door->share_time_ns = now_ns;
}

static bool share_wants(const struct client *client, uint64_t now_ns) {
    return client->blocked == BLOCKED_TAB || now_ns - client->active_ns < ACTIVE_NS;
}

/* ---- Taking requests ---------------------------------------------------------------------------------------------- */

struct round {
    struct node_request *first, **last;
    uint32_t count;
};

/* Out of the endless stream of submitted bytes; may wrap around. */
static void submit_copy(const struct client *client, void *to, size_t size) {
    const uint8_t *bytes = client->ring->submit;
    size_t at = client->submit_head % RING_SUBMIT_BYTES;
    size_t first = min_u64(size, RING_SUBMIT_BYTES - at);
    memcpy(to, bytes + at, first);
    memcpy((uint8_t *)to + first, bytes, size - first);
}

/* G1: believes the client's cursors, or says what is wrong with them. */
static const char *cursors_look(struct client *client) {
    uint64_t tail = atomic_load_explicit(&client->ring->submit_tail, memory_order_acquire);
    uint64_t reply_head = atomic_load_explicit(&client->ring->reply_head, memory_order_acquire);
    uint64_t given = atomic_load(&client->given); /* after what the client may have seen of it */
    uint64_t head = client->submit_head;
    if (tail - head > RING_SUBMIT_BYTES || tail - head < client->submit_tail_seen - head || tail % 8 != 0) {
        return "the cursor of its submit ring makes no sense";
    }
    if (reply_head - client->reply_head_seen > given - client->reply_head_seen) {
        return "the cursor of its reply ring makes no sense";
    }
    client->submit_tail_seen = tail;
    client->reply_head_seen = reply_head;
    return NULL;
}

static bool bytes_allow(const struct client *client) { /* R3 */
    uint64_t pending = atomic_load(&client->pending_bytes);
    return pending == 0 || pending + client->frame.size <= client->door->options.client_bytes_max;
}

static bool replies_allow(const struct client *client, uint64_t reply_head) { /* R2 */
    return client->taken - reply_head < client->door->options.client_requests_max;
}

/* The next request is begun: its header is known, there is room for it. */
static bool frame_begin(struct client *client) {
    if (!client->framed) {
        if (client->submit_tail_seen - client->submit_head < sizeof(client->frame)) {
            client->blocked = BLOCKED_NOT;
            return false;
        }
        submit_copy(client, &client->frame, sizeof(client->frame)); /* R1 */
        client->submit_head += sizeof(client->frame);
        client->framed = true;
        const struct ring_frame *frame = &client->frame;
        if (frame->size < sizeof(struct request_header) || frame->size > REQUEST_BYTES_MAX ||
            frame->reserved != 0) {
            client_break(client, "a frame of its submit ring makes no sense");
            return false;
        }
    }
    if (!replies_allow(client, client->reply_head_seen)) {
        client->blocked = BLOCKED_REPLIES;
        return false;
    }
    if (!bytes_allow(client)) {
        client->blocked = BLOCKED_BYTES;
        return false;
    }
    client->partial = parcel_make(client, client->frame.size);
    client->partial_done = 0;
    if (!client->partial) {
        client_break(client, "there is no memory for its request");
        return false;
    }
    client->partial->request.credentials = &client->credentials;
    client->partial->tag = client->frame.tag;
    return true;
}

/* As much of it as is there, `bytes_max` at most. Returns how much; 0: nothing. */
static uint64_t frame_copy(struct client *client, uint64_t bytes_max) {
    struct parcel *parcel = client->partial;
    uint64_t padded = align_up(parcel->size, 8);
    uint64_t part = min_u64(min_u64(padded - client->partial_done, bytes_max),
                            client->submit_tail_seen - client->submit_head);
    uint64_t real = min_u64(part, parcel->size - min_u64(client->partial_done, parcel->size));
    submit_copy(client, parcel->bytes + client->partial_done, real);
    client->partial_done += part;
    client->submit_head += part;
    return part;
}

static void frame_end(struct client *client, struct round *round) {
    struct parcel *parcel = client->partial;
    client->partial = NULL;
    client->framed = false;
    client->taken++;
    if (client->door->sharers > 1) {
        parcel->request.cost_ns = &client->cost_ns;
        client->cost_ns += parcel->size / 2; /* to copy it to the log, and to write that */
    }
    (void)atomic_fetch_add_explicit(&client->bytes, parcel->size, memory_order_relaxed);
    parcel_begin(parcel);
    parcel->request.next = NULL;
    if (opens_unnamed(parcel) && !session_share_allows(client)) {
        parcel->request.reply =
            (struct reply){.result = SHELF_NO_SPACE, .reason = REASON_SESSION_SHARE_PROGRAM};
        parcel_done(&parcel->request);
        return;
    }
    *round->last = &parcel->request;
    round->last = &parcel->request.next;
    round->count++;
}

/* Room in the ring: tells it, and the client if it may be waiting for just that (R4). */
static void room_give(struct client *client, uint64_t head_before) {
    uint64_t used = client->submit_tail_seen - head_before;
    if (client->submit_head == head_before) {
        return;
    }
    atomic_store(&client->ring->submit_head, client->submit_head);
    if (used > RING_SUBMIT_BYTES / 2 || client->framed) {
        client_bell(client);
    }
}

/* A client's turn. */
static void client_take(struct client *client, struct round *round) {
    const char *rule = cursors_look(client);
    if (rule) {
        client_break(client, rule);
        return;
    }
    uint64_t head_before = client->submit_head, bytes_left = TURN_BYTES;
    uint32_t count_before = round->count;
    share_settle(client);
    if (share_is_used(client) && client->submit_tail_seen != client->submit_head) {
        client->blocked = BLOCKED_TAB;
        return;
    }
    uint32_t count_max = turn_requests(client);
    client->blocked = BLOCKED_NOT;
    while (client->partial || frame_begin(client)) {
        bytes_left -= frame_copy(client, bytes_left);
        if (client->partial_done < align_up(client->partial->size, 8)) {
            client->blocked = bytes_left == 0 ? BLOCKED_TURN : BLOCKED_NOT;
            break;
        }
        frame_end(client, round);
        if (bytes_left < sizeof(struct ring_frame) || round->count - count_before >= count_max) {
            client->blocked = BLOCKED_TURN;
            break;
        }
    }
    room_give(client, head_before);
    if (client->submit_head != head_before) {
        client->active_ns = client->door->busy_ns = world_monotonic_ns();
    }
}

struct node_request *rings_take(void *context) {
    struct door *door = context;
    struct round round = {.last = &round.first};
    uint32_t seen = 0, sharers = 0, waiting = 0;
    shares_grow(door);
    LIST_FOREACH(link, &door->active) {
        struct client *client = LIST_ENTRY(link, struct client, active_link);
        if (!client->broken) {
            client_take(client, &round);
            sharers += share_wants(client, door->share_time_ns);
            waiting += client->blocked == BLOCKED_TAB;
        }
        seen++;
        if (round.count >= ROUND_REQUESTS) {
            break;
        }
    }
    if (round.count >= ROUND_REQUESTS) { /* the others come first the next time */
        for (; seen > 0; seen--) {
            list_push_back(&door->active, list_pop_front(&door->active));
        }
    }
    if (round.count < ROUND_REQUESTS) { /* else not all were looked at */
        door->sharers = sharers;
        door->waiting = waiting;
    }
    return round.first;
}

/* ---- Rest --------------------------------------------------------------------------------------------------------- */

/* Is there anything that could be taken now? */
static bool client_ready(const struct client *client) {
    const struct ring *ring = client->ring;
    if (client->blocked == BLOCKED_TAB) {
        return !share_is_used(client);
    }
    if (atomic_load(&ring->submit_tail) != client->submit_tail_seen) {
        return true;
    }
    switch (client->blocked) {
    case BLOCKED_TAB:
    case BLOCKED_TURN:
        return true;
    case BLOCKED_BYTES:
        return bytes_allow(client);
    case BLOCKED_REPLIES:
        return replies_allow(client, atomic_load(&ring->reply_head));
    case BLOCKED_NOT:
        break;
    }
    return false;
}

static void client_sleep_begin(struct client *client) {
    atomic_store_explicit(&client->starved, client->blocked == BLOCKED_BYTES, memory_order_relaxed);
    atomic_store_explicit(&client->ring->node_sleeps, 1, memory_order_relaxed);
}

static void client_sleep_end(struct client *client) {
    atomic_store_explicit(&client->starved, 0, memory_order_relaxed);
    atomic_store_explicit(&client->ring->node_sleeps, 0, memory_order_relaxed);
}

void ring_activate(struct client *client) {
    if (client->ring && !client->broken) {
        client_sleep_end(client);
        client->active_ns = world_monotonic_ns();
        list_unlink(&client->active_link);
        list_push_back(&client->door->active, &client->active_link);
    }
}

void rings_wake(struct door *door) {
    LIST_FOREACH(link, &door->active) {
        client_sleep_end(LIST_ENTRY(link, struct client, active_link));
    }
}

bool rings_rest(struct door *door) {
    LIST_FOREACH(link, &door->active) {
        client_sleep_begin(LIST_ENTRY(link, struct client, active_link));
    }
    atomic_thread_fence(memory_order_seq_cst); /* G4 */
    LIST_FOREACH(link, &door->active) {
        if (client_ready(LIST_ENTRY(link, struct client, active_link))) {
            rings_wake(door);
            return false;
        }
    }
    return true;
}

void rings_settle(struct door *door) {
    uint64_t now_ns = world_monotonic_ns();
    LIST_FOREACH(link, &door->active) {
        struct client *client = LIST_ENTRY(link, struct client, active_link);
        if (now_ns - client->active_ns < ACTIVE_NS || client->blocked == BLOCKED_TAB) {
            continue;
        }
        client_sleep_begin(client);
        atomic_thread_fence(memory_order_seq_cst); /* G4 */
        if (client_ready(client)) {
            client_sleep_end(client);
        } else {
            list_unlink(link);
        }
    }
}
