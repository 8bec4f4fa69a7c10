// SPDX-License-Identifier: Apache-2.0
//
// See coordinator.h. A message is a request, an answer, or a swap that comes late; a step picks one of them by chance, or tells a
// node of the store's present state.

#include "coordinator.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"

#define STORE_ID     1u
#define MESSAGES_MAX 1024u

enum message_kind {
    MESSAGE_REQUEST = 1,
    MESSAGE_LATE, // a swap whose asker has been told UNKNOWN
    MESSAGE_ANSWER,
};

struct message {
    enum message_kind kind;
    uint32_t node;
    uint32_t life;                // of the node; an answer to an earlier one goes nowhere
    uint64_t floor;               // what the node knew when it asked
    struct coordinator_ask *ask;  // the asker's own
    struct coordinator_ask asked; // as it was sent; in an answer with outcome and state
    uint64_t at;                  // of an answer: the revision of the store
    struct register_history history;
};

struct store_register {
    struct register_id id;
    struct register_state state;
    struct register_history history;
};

struct store {
    uint64_t revision;
    uint32_t count;
    struct store_register registers[REGISTERS_MAX];
};

struct node {
    bool started, cut, refused, reached;
    uint32_t life;
    uint64_t store_seen; // changes of the store that the node was told of
    struct list answered;
    struct coordinator_table table;
    struct coordinator_memory memory;
};

struct sim_coordinator {
    struct random *random;
    struct sim_coordinator_plan plan;
    bool gone;
    uint64_t changes; // counts also restorations
    struct store store, backup;
    struct node nodes[SIM_COORDINATOR_NODES_MAX];
    uint32_t message_count;
    struct message *messages[MESSAGES_MAX];
};

static bool chance(struct sim_coordinator *coordinator, uint32_t per_1000) {
    return per_1000 > 0 && random_chance(coordinator->random, per_1000, 1000);
}

static struct message *message_add(struct sim_coordinator *coordinator, enum message_kind kind,
                                   uint32_t node) {
    ASSERT(coordinator->message_count < MESSAGES_MAX);
    struct message *message = calloc(1, sizeof(*message));
    ASSERT(message);
    message->kind = kind;
    message->node = node;
    message->life = coordinator->nodes[node].life;
    message->floor = coordinator->nodes[node].memory.revision;
    coordinator->messages[coordinator->message_count++] = message;
    return message;
}

static struct message *message_pop(struct sim_coordinator *coordinator, uint32_t place) {
    struct message *message = coordinator->messages[place];
    coordinator->messages[place] = coordinator->messages[--coordinator->message_count];
    return message;
}

struct sim_coordinator *sim_coordinator_new(struct random *random, const struct sim_coordinator_plan *plan) {
    struct sim_coordinator *coordinator = calloc(1, sizeof(*coordinator));
    ASSERT(coordinator);
    coordinator->random = random;
    coordinator->plan = *plan;
    coordinator->store.revision = 1; // as etcd's is, of a new store
    return coordinator;
}

void sim_coordinator_free(struct sim_coordinator *coordinator) {
    while (coordinator->message_count > 0) {
        free(message_pop(coordinator, 0));
    }
    free(coordinator);
}

void sim_coordinator_plan_set(struct sim_coordinator *coordinator, const struct sim_coordinator_plan *plan) {
    coordinator->plan = *plan;
}

// ---- The nodes

void sim_coordinator_node_start(struct sim_coordinator *coordinator, uint32_t number, bool wiped) {
    struct node *node = &coordinator->nodes[number];
    struct coordinator_memory memory = node->memory;
    uint32_t life = node->life;
    bool cut = node->cut;
    *node = (struct node){.started = true, .life = life + 1, .cut = cut};
    list_init(&node->answered);
    if (!wiped) {
        node->memory = memory;
    }
}

static void node_answer(struct sim_coordinator *coordinator, uint32_t number, struct coordinator_ask *ask,
                        uint32_t outcome) {
    ask->outcome = outcome;
    if (outcome != COORDINATOR_OK && outcome != COORDINATOR_LOST) {
        ask->state = (struct register_state){0};
    }
    list_push_back(&coordinator->nodes[number].answered, &ask->link);
}

static bool node_is_cut(const struct sim_coordinator *coordinator, uint32_t number) {
    return coordinator->gone || coordinator->nodes[number].cut;
}

void sim_coordinator_start(struct sim_coordinator *coordinator, uint32_t number,
                           struct coordinator_ask *ask) {
    list_init(&ask->link);
    ASSERT(coordinator->nodes[number].started);
    if (coordinator_ask_problem(ask)) {
        node_answer(coordinator, number, ask, COORDINATOR_REFUSED);
        return;
    }
    struct message *message = message_add(coordinator, MESSAGE_REQUEST, number);
    message->ask = ask;
    message->asked = *ask;
}

struct coordinator_ask *sim_coordinator_take(struct sim_coordinator *coordinator, uint32_t number) {
    struct list *link = list_pop_front(&coordinator->nodes[number].answered);
    return link ? LIST_ENTRY(link, struct coordinator_ask, link) : NULL;
}

bool sim_coordinator_news_take(struct sim_coordinator *coordinator, uint32_t number,
                               struct coordinator_news *ret_news) {
    return coordinator_table_news(&coordinator->nodes[number].table, ret_news);
}

bool sim_coordinator_reachable(const struct sim_coordinator *coordinator, uint32_t number) {
    return coordinator->nodes[number].reached && !node_is_cut(coordinator, number);
}

bool sim_coordinator_refused(const struct sim_coordinator *coordinator, uint32_t number) {
    return coordinator->nodes[number].refused;
}

// ---- The store

// The place of a register; the number of registers: there is none.
static uint32_t store_find(const struct store *store, struct register_id id) {
    uint32_t place = 0;
    while (place < store->count && !register_id_same(store->registers[place].id, id)) {
        place++;
    }
    return place;
}

static void store_swap(struct store *store, uint32_t place, const struct coordinator_ask *ask) {
    struct store_register *found = &store->registers[place];
    if (place == store->count) {
        ASSERT(store->count < REGISTERS_MAX);
        store->count++;
        *found = (struct store_register){.id = ask->id, .history = {.created = store->revision + 1}};
    }
    found->state.revision = ++store->revision;
    found->history.version++;
    found->state.size = ask->size;
    memset(found->state.value, 0, sizeof(found->state.value));
    memcpy(found->state.value, ask->value, ask->size);
}

static void store_remove(struct store *store, uint32_t place) {
    store->registers[place] = store->registers[--store->count];
    store->revision++;
}

static struct store_register store_look(const struct store *store, struct register_id id) {
    uint32_t place = store_find(store, id);
    return place < store->count ? store->registers[place] : (struct store_register){0};
}

// Carries it out, and fills in the answer.
static void store_run(struct sim_coordinator *coordinator, struct message *message) {
    struct store *store = &coordinator->store;
    struct coordinator_ask *ask = &message->asked;
    uint32_t place = store_find(store, ask->id);
    bool changes = ask->act != COORDINATOR_GET;
    ask->outcome = COORDINATOR_OK;
    if (changes && store_look(store, ask->id).state.revision != ask->expected) {
        ask->outcome = COORDINATOR_LOST;
    } else if (ask->act == COORDINATOR_SWAP) {
        store_swap(store, place, ask);
        coordinator->changes++;
    } else if (ask->act == COORDINATOR_REMOVE) {
        store_remove(store, place);
        coordinator->changes++;
    }
    struct store_register found = store_look(store, ask->id);
    ask->state = found.state;
    message->history = found.history;
    message->at = store->revision;
}

void sim_coordinator_look(const struct sim_coordinator *coordinator, struct register_id id,
                          struct register_state *ret_state) {
    *ret_state = store_look(&coordinator->store, id).state;
}

void sim_coordinator_gone_set(struct sim_coordinator *coordinator, bool gone) {
    coordinator->gone = gone;
}

void sim_coordinator_cut_set(struct sim_coordinator *coordinator, uint32_t number, bool cut) {
    coordinator->nodes[number].cut = cut;
}

void sim_coordinator_backup(struct sim_coordinator *coordinator) {
    coordinator->backup = coordinator->store;
}

void sim_coordinator_restore(struct sim_coordinator *coordinator) {
    coordinator->store = coordinator->backup;
    coordinator->changes++;
}

// ---- What happens

static bool is_change(const struct message *message) {
    return message->asked.act != COORDINATOR_GET;
}

// The request or its answer does not arrive: the asker gives up.
static void asker_give_up(struct sim_coordinator *coordinator, const struct message *message, bool sent) {
    if (message->life == coordinator->nodes[message->node].life) {
        node_answer(coordinator, message->node, message->ask,
                    sent && is_change(message) ? COORDINATOR_UNKNOWN : COORDINATOR_UNAVAILABLE);
    }
}

static void request_arrive(struct sim_coordinator *coordinator, struct message *message) {
    bool cut = node_is_cut(coordinator, message->node);
    coordinator->nodes[message->node].reached &= !cut;
    if (cut && random_chance(coordinator->random, 1, 2)) {
        asker_give_up(coordinator, message, false); // it could not even be sent
    } else if (cut || chance(coordinator, coordinator->plan.request_lost)) {
        asker_give_up(coordinator, message, true);
    } else if (is_change(message) && chance(coordinator, coordinator->plan.late)) {
        struct message *late = message_add(coordinator, MESSAGE_LATE, message->node);
        late->asked = message->asked;
        asker_give_up(coordinator, message, true);
    } else {
        store_run(coordinator, message);
        struct message *answer = message_add(coordinator, MESSAGE_ANSWER, message->node);
        uint32_t life = message->life;
        uint64_t floor = message->floor;
        *answer = *message;
        answer->kind = MESSAGE_ANSWER;
        answer->life = life;
        answer->floor = floor;
    }
}

static void answer_arrive(struct sim_coordinator *coordinator, struct message *message) {
    struct node *node = &coordinator->nodes[message->node];
    if (message->life != node->life) {
        return;
    }
    if (node_is_cut(coordinator, message->node) || chance(coordinator, coordinator->plan.answer_lost)) {
        asker_give_up(coordinator, message, true);
        return;
    }
    const struct coordinator_ask *asked = &message->asked;
    struct coordinator_memory memory = node->memory;
    const char *problem = coordinator_memory_store(&memory, STORE_ID, message->at, message->floor);
    if (!problem && asked->state.revision != 0) {
        problem =
            coordinator_memory_register(&memory, asked->id, &asked->state, message->history, message->at);
    } else if (!problem) {
        problem = coordinator_memory_absent(&memory, asked->id, message->at);
    }
    node->refused = problem != NULL;
    node->reached = true;
    if (problem) {
        node_answer(coordinator, message->node, message->ask, COORDINATOR_REFUSED);
        return;
    }
    node->memory = memory;
    message->ask->state = asked->state;
    node_answer(coordinator, message->node, message->ask, asked->outcome);
}

static const char *store_judge(const struct store *store, struct coordinator_memory *memory) {
    const char *problem = coordinator_memory_store(memory, STORE_ID, store->revision, memory->revision);
    for (uint32_t i = 0; !problem && i < store->count; i++) {
        const struct store_register *entry = &store->registers[i];
        problem =
            coordinator_memory_register(memory, entry->id, &entry->state, entry->history, store->revision);
    }
    for (uint32_t i = 0; !problem && i < memory->count; i++) {
        struct register_id id = {memory->entries[i].kind, memory->entries[i].number};
        problem = store_find(store, id) < store->count
                      ? NULL
                      : coordinator_memory_absent(memory, id, store->revision);
    }
    return problem;
}

static void news_arrive(struct sim_coordinator *coordinator, uint32_t number) {
    struct node *node = &coordinator->nodes[number];
    const struct store *store = &coordinator->store;
    struct coordinator_memory memory = node->memory;
    const char *problem = store_judge(store, &memory);
    node->store_seen = coordinator->changes + 1;
    node->reached = true;
    node->refused = problem != NULL;
    if (problem || !coordinator_table_begin(&node->table, store->revision)) {
        return;
    }
    node->memory = memory;
    for (uint32_t i = 0; i < store->count; i++) {
        bool room =
            coordinator_table_set(&node->table, store->registers[i].id, &store->registers[i].state, NULL);
        ASSERT(room);
    }
    (void)coordinator_table_end(&node->table, store->revision);
}

// A node that can be told of a change; SIM_COORDINATOR_NODES_MAX: there is none.
static uint32_t node_behind(const struct sim_coordinator *coordinator) {
    uint32_t first = (uint32_t)random_below(coordinator->random, SIM_COORDINATOR_NODES_MAX);
    for (uint32_t i = 0; i < SIM_COORDINATOR_NODES_MAX; i++) {
        uint32_t number = (first + i) % SIM_COORDINATOR_NODES_MAX;
        const struct node *node = &coordinator->nodes[number];
        if (node->started && !node_is_cut(coordinator, number) &&
            node->store_seen != coordinator->changes + 1) {
            return number;
        }
    }
    return SIM_COORDINATOR_NODES_MAX;
}

bool sim_coordinator_step(struct sim_coordinator *coordinator) {
    uint32_t behind = node_behind(coordinator);
    bool news = behind < SIM_COORDINATOR_NODES_MAX;
    if (news && (coordinator->message_count == 0 || random_chance(coordinator->random, 1, 3))) {
        news_arrive(coordinator, behind);
        return true;
    }
    if (coordinator->message_count == 0) {
        return false;
    }
    uint32_t place = (uint32_t)random_below(coordinator->random, coordinator->message_count);
    struct message *message = message_pop(coordinator, place);
    switch (message->kind) {
    case MESSAGE_REQUEST:
        request_arrive(coordinator, message);
        break;
    case MESSAGE_LATE:
        if (coordinator->gone) { // it waits, or is never seen again
            if (random_chance(coordinator->random, 1, 2)) {
                struct message *again = message_add(coordinator, MESSAGE_LATE, message->node);
                again->asked = message->asked;
            }
        } else {
            store_run(coordinator, message);
        }
        break;
    case MESSAGE_ANSWER:
        answer_arrive(coordinator, message);
        break;
    }
    free(message);
    return true;
}
