// SPDX-License-Identifier: Apache-2.0
//
// See net.h.

#include "net.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/sometimes.h"

static const uint8_t cluster_id[16] = "simulated group";

bool net_chance(struct net *net, uint64_t per_1000) {
    return per_1000 > 0 && random_chance(net->random, per_1000, 1000);
}

// ---- Letters

static const char *kind_name(uint16_t kind) {
    static const char *const names[PEER_KIND_END] = {
        "?",       "hello", "join",    "append",  "ack",    "suspect", "suspicious", "promise-ask",
        "promise", "fetch", "fetched", "forward", "answer", "offer",   "part-ask",   "part"};
    return kind < PEER_KIND_END ? names[kind] : names[0];
}

static void letter_remove(struct net *net, uint32_t place) {
    memmove(&net->letters[place], &net->letters[place + 1],
            (net->letter_count - place - 1) * sizeof(net->letters[0]));
    net->letter_count--;
}

void net_send(struct net *net, uint64_t from, uint64_t to, const struct peer_message *message) {
    if (to == 0 || to > net->nodes) {
        return;
    }
    if (net->letter_count == LETTERS_MAX) { // a full queue loses something
        uint32_t place = (uint32_t)random_below(net->random, LETTERS_MAX);
        free(net->letters[place].bytes);
        letter_remove(net, place);
    }
    struct letter *letter = &net->letters[net->letter_count++];
    *letter = (struct letter){.from = from, .to = to};
    letter->bytes = malloc(PEER_HEAD_BYTES_MAX + message->body_size);
    ASSERT(letter->bytes);
    letter->size = peer_encode(message, cluster_id, 0, letter->bytes);
    if (message->body_size > 0) {
        memcpy(letter->bytes + letter->size, message->body, message->body_size);
        letter->size += message->body_size;
    }
    if (net->faults && message->kind == PEER_PART && message->body_size > sizeof(struct peer_part) &&
        net_chance(net, net->damage)) { // before it was sent: the message's own checksum is right
        struct peer_message copy = *message;
        uint8_t *body = letter->bytes + sizeof(struct peer_header);
        body[random_between(net->random, sizeof(struct peer_part), message->body_size - 1)] ^= 0x10;
        copy.body = body;
        (void)peer_encode(&copy, cluster_id, 0, letter->bytes);
    }
    if (net->faults && net_chance(net, net->late)) {
        letter->late_ms = net->now_ms + random_between(net->random, 50, 1500);
    }
}

static void letter_deliver(struct net *net, const struct letter *letter) {
    size_t body_size = 0;
    struct peer_message message = {0};
    const char *problem = peer_header_decode(letter->bytes, cluster_id, 0, &body_size);
    if (problem == NULL) {
        problem = peer_decode(letter->bytes, letter->bytes + sizeof(struct peer_header), &message);
    }
    SIM_CHECK(problem == NULL, "node %llu sent what is no message: %s", (unsigned long long)letter->from,
              problem);
    sim_trace("%llu -> %llu: %s, epoch %llu, index %llu.%llu%s, commit %llu, last %llu.%llu%s%s",
              (unsigned long long)letter->from, (unsigned long long)letter->to, kind_name(message.kind),
              (unsigned long long)message.epoch, (unsigned long long)message.index,
              (unsigned long long)message.index_epoch, message.body ? " + record" : "",
              (unsigned long long)message.commit, (unsigned long long)message.last,
              (unsigned long long)message.last_epoch, message.flags & PEER_FLAG_NO ? ", no" : "",
              message.flags & PEER_FLAG_BEHIND ? ", behind" : "");
    net->deliver(net->context, letter->to, &message);
}

void net_letter_again(struct net *net, const struct letter *letter) {
    ASSERT(net->letter_count < LETTERS_MAX);
    struct letter *copy = &net->letters[net->letter_count++];
    *copy = *letter;
    copy->bytes = malloc(letter->size);
    ASSERT(copy->bytes);
    memcpy(copy->bytes, letter->bytes, letter->size);
}

void net_letter_end(struct net *net, struct letter *letter, bool arrive) {
    if (arrive) {
        letter_deliver(net, letter);
    }
    free(letter->bytes);
}

void net_step(struct net *net) {
    if (net->letter_count == 0) {
        return;
    }
    // Mostly the older ones first: what is late is very late.
    uint64_t window = net->faults && net_chance(net, 150) ? net->letter_count : min_u64(net->letter_count, 4);
    uint32_t place = net->faults ? (uint32_t)random_below(net->random, window) : 0;
    struct letter letter = net->letters[place];
    if (net->faults && letter.late_ms > net->now_ms) {
        return;
    }
    bool twice = net->faults && net_chance(net, net->duplicate);
    bool lost = (net->faults && net_chance(net, net->loss)) || net->cut[letter.from][letter.to];
    if (twice) {
        letter.bytes = malloc(letter.size);
        ASSERT(letter.bytes);
        memcpy(letter.bytes, net->letters[place].bytes, letter.size);
    } else {
        letter_remove(net, place);
    }
    net_letter_end(net, &letter, !lost && net->hears(net->context, letter.to));
}

void net_partition(struct net *net) {
    uint64_t kind = random_below(net->random, 4);
    uint64_t side = random_below(net->random, (uint64_t)1 << net->nodes);
    memset(net->cut, 0, sizeof(net->cut));
    for (uint64_t a = 1; kind > 0 && a <= net->nodes; a++) {
        for (uint64_t b = 1; b <= net->nodes; b++) {
            bool a_in = (side >> (a - 1) & 1u) != 0;
            bool b_in = (side >> (b - 1) & 1u) != 0;
            net->cut[a][b] = kind == 1   ? a_in != b_in  // full
                             : kind == 2 ? a_in && !b_in // one way
                                         : net_chance(net, 300);
        }
    }
    sim_trace("partition: kind %llu, side %llx", (unsigned long long)kind, (unsigned long long)side);
}

void net_node_gone(struct net *net, uint64_t node) {
    for (uint32_t i = 0; i < net->letter_count; i++) {
        if (net->letters[i].from == node) {
            free(net->letters[i].bytes);
            letter_remove(net, i--);
        }
    }
}

void net_free(struct net *net) {
    for (uint32_t i = 0; i < net->letter_count; i++) {
        free(net->letters[i].bytes);
    }
    net->letter_count = 0;
}

struct group_config net_group_config(struct net *net, uint64_t node, uint32_t copies, uint32_t min_copies,
                                     uint32_t flight_records_max) {
    struct group_config config = {.node = node,
                                  .seed = random_next(net->random),
                                  .heartbeat_ms = 20,
                                  .suspect_ms = 120,
                                  .retry_ms = 50,
                                  .remove_ms = 400,
                                  .change_ms = 300,
                                  .disk_ms = 800,
                                  .copies = copies,
                                  .min_copies = min_copies,
                                  .flight_records_max = flight_records_max};
    random_fill(net->random, config.nonce, sizeof(config.nonce));
    memcpy(config.incarnation, net->incarnation(net->context, node), sizeof(config.incarnation));
    return config;
}

void net_heal(struct net *net) {
    sim_trace("faults end");
    net->faults = net->register_down = false;
    memset(net->cut, 0, sizeof(net->cut));
}

void net_healing(const struct net *net, uint64_t steps, uint64_t begin_ms) {
    SIM_CHECK(steps < HEAL_STEPS_MAX && net->now_ms < begin_ms + HEAL_MS_MAX,
              "Q6: not healed after %llu ms: epoch %llu, primary %llu, %u members of %u nodes",
              (unsigned long long)(net->now_ms - begin_ms), (unsigned long long)net->present.epoch,
              (unsigned long long)net->present.primary, net->present.member_count, net->nodes);
}

// ---- The register

static struct register_op *op_add(struct net *net, uint64_t node, uint32_t life) {
    if (net->op_count == OPS_MAX) { // something old is forgotten: as if lost with the coordinator
        net->ops[0] = net->ops[--net->op_count];
    }
    struct register_op *op = &net->ops[net->op_count++];
    *op = (struct register_op){.node = node, .life = life};
    return op;
}

void register_swap(struct net *net, uint64_t node, uint32_t life, uint64_t expected,
                   const struct configuration *wanted) {
    struct register_op *op = op_add(net, node, life);
    op->swap = true;
    op->expected = expected;
    op->wanted = *wanted;
}

void register_look(struct net *net, uint64_t node, uint32_t life) {
    op_add(net, node, life);
}

static void op_execute(struct net *net, struct register_op *op) {
    op->executed = true;
    if (op->swap && net->present.epoch == op->expected) {
        if (op->answered) {
            SOMETIMES(GROUP_SIM_LATE_SWAP_LANDED);
        }
        op->won = true;
        net->present = op->wanted;
        SIM_CHECK(op->wanted.epoch < NET_EPOCHS_MAX, "too many epochs: %llu",
                  (unsigned long long)op->wanted.epoch);
        net->sets[op->wanted.epoch] = op->wanted;
        sim_trace("register: epoch %llu, primary %llu, %u members", (unsigned long long)op->wanted.epoch,
                  (unsigned long long)op->wanted.primary, op->wanted.member_count);
    }
    op->present = net->present;
}

static void op_answer(struct net *net, struct register_op *op, bool lost) {
    op->answered = true;
    struct register_op copy = *op;
    if (!net->lives(net->context, copy.node, copy.life)) {
        return;
    }
    if (!copy.swap) {
        if (!lost) {
            net->look_answer(net->context, copy.node, &copy.present);
        }
        return;
    }
    enum swap_result result = lost ? SWAP_UNKNOWN : copy.won ? SWAP_WON : SWAP_LOST;
    sim_trace("node %llu: its swap to epoch %llu is %s", (unsigned long long)copy.node,
              (unsigned long long)copy.wanted.epoch,
              result == SWAP_UNKNOWN ? "unknown"
              : result == SWAP_WON   ? "won"
                                     : "lost");
    net->swap_answer(net->context, copy.node, result, copy.won ? &copy.wanted : &copy.present);
}

void register_step(struct net *net) {
    if (net->op_count == 0 || (net->register_down && net->faults && net_chance(net, 950))) {
        return;
    }
    uint32_t place = (uint32_t)random_below(net->random, net->op_count);
    struct register_op *op = &net->ops[place];
    bool faulty = net->faults && (net->register_cut[op->node] || net_chance(net, net->register_fault));
    if (!op->answered && faulty) { // its answer gets lost: done, not done, or done much later
        if (!op->executed && net_chance(net, 400)) {
            op_execute(net, op);
        } else if (!op->executed && op->swap) {
            SOMETIMES(GROUP_SIM_LATE_SWAP);
        }
        op_answer(net, op, true);
        return;
    }
    if (!op->executed) {
        if (op->answered && net->faults && net_chance(net, 800)) {
            return; // later still
        }
        bool never = op->answered && net_chance(net, 300);
        if (!never) {
            op_execute(net, op);
        }
        if (net->faults && !op->answered && net_chance(net, 300)) {
            return; // its answer comes later
        }
    }
    struct register_op done = *op;
    *op = net->ops[--net->op_count];
    if (!done.answered) {
        op_answer(net, &done, false);
    }
}

void register_news(struct net *net) {
    uint64_t node = random_between(net->random, 1, net->nodes);
    bool cut_off = net->faults && (net->register_down || net->register_cut[node]);
    if (!cut_off && net->hears(net->context, node)) {
        struct configuration present = net->present;
        net->look_answer(net->context, node, &present);
    }
}

void register_begin(struct net *net, uint32_t members) {
    struct configuration *present = &net->present;
    present->epoch = present->primary = 1; // node 1 takes the next
    present->member_count = members;
    for (uint32_t i = 0; i < members; i++) {
        struct configuration_member *member = &present->members[i];
        member->node = i + 1;
        memcpy(member->incarnation, net->incarnation(net->context, member->node),
               sizeof(member->incarnation));
    }
    net->sets[1] = *present;
}

void register_trouble(struct net *net, uint64_t node, uint64_t per_1000) {
    if (net_chance(net, per_1000)) {
        net->register_cut[node] = !net->register_cut[node];
    }
    if (net_chance(net, per_1000)) {
        net->register_down = !net->register_down;
    }
}

void register_lead(struct net *net, uint64_t node, const uint8_t nonce[16], uint64_t epoch) {
    const struct configuration *set = &net->sets[epoch];
    SIM_CHECK(epoch < NET_EPOCHS_MAX && set->epoch == epoch && set->primary == node &&
                  memcmp(set->nonce, nonce, sizeof(set->nonce)) == 0,
              "Q1: node %llu leads epoch %llu, which the register never gave it", (unsigned long long)node,
              (unsigned long long)epoch);
    SIM_CHECK(net->leaders[epoch] == 0, "Q1: epoch %llu is led twice", (unsigned long long)epoch);
    net->leaders[epoch] = node;
}

bool register_set_survives(const struct net *net, const struct configuration *set, uint64_t wiped) {
    uint32_t left = 0;
    for (uint32_t i = 0; i < set->member_count; i++) {
        const struct configuration_member *member = &set->members[i];
        left += member->node != wiped && memcmp(net->incarnation(net->context, member->node),
                                                member->incarnation, sizeof(member->incarnation)) == 0;
    }
    return left >= set->member_count - set->member_count / 2;
}

bool register_survives(const struct net *net, uint64_t wiped) {
    bool survives = register_set_survives(net, &net->present, wiped);
    for (uint32_t i = 0; i < net->op_count; i++) {
        survives &= !net->ops[i].swap || register_set_survives(net, &net->ops[i].wanted, wiped);
    }
    return survives;
}
