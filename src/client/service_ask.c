// SPDX-License-Identifier: Apache-2.0
/*
 * service_ask.c: questions to a node in another process, over the socket of the attachment. A question whose attachment ends
 * before the answer has come is asked again at the next one: none of them changes anything.
 */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/detail.h"
#include "client/service_state.h"
#include "world/world.h"

/* ---- Answers ------------------------------------------------------------------------------------------------------ */

static struct ask *ask_of(struct service *service, const struct door_message *message) {
    LIST_FOREACH(link, &service->asks) {
        struct ask *ask = LIST_ENTRY(link, struct ask, link);
        if (ask->id == message->id && ask->kind == message->kind && ask->size == 0)
            return ask;
    }
    return NULL;
}

bool ask_on_answer(struct service *service, const void *packet, size_t size, const int fds[GUEST_FDS_MAX]) {
    struct door_message message = {0};
    struct ask *ask = NULL;
    if (size >= sizeof(message)) {
        memcpy(&message, packet, sizeof(message));
        ask = message.size == size ? ask_of(service, &message) : NULL;
        service->ask_count -= service->ask_count > 0;
    }
    if (!ask || size > ask->size_max) {
        descriptors_close(fds);
        /* To a question that was given up: well. */
        return size >= sizeof(message) && message.size == size && message.id <= service->ask_id && !ask;
    }
    memcpy(ask->answer, packet, size);
    ask->size = (ssize_t)size;
    memcpy(ask->fds, fds, sizeof(ask->fds));
    waiter_wake(ask->waiter);
    return true;
}

void asks_end(struct service *service) {
    service->ask_count = 0;
    LIST_FOREACH(link, &service->asks) {
        struct ask *ask = LIST_ENTRY(link, struct ask, link);
        if (ask->size == 0)
            ask->size = -1;
        waiter_wake(ask->waiter);
    }
}

/* ---- Asking ------------------------------------------------------------------------------------------------------- */

static bool ask_over(void *context) {
    const struct ask *ask = context;
    return ask->size != 0;
}

static bool may_ask(void *context) {
    const struct service *service = context;
    return service->state == SERVICE_NODE ||
           (service->state == SERVICE_ATTACHED && service->ask_count < DOOR_ASKS_MAX);
}

/* One attempt, with the mutex, ATTACHED. False: the time is over. What is given up then still counts, until the node has answered:
 * so the socket always has room for a question, and sending never waits for a node that does not read. */
static bool ask_once(struct service *service, struct ask *ask, struct door_ask *question, uint64_t until_ns) {
    question->message =
        (struct door_message){.size = sizeof(*question), .kind = ask->kind, .id = ++service->ask_id};
    ask->id = service->ask_id;
    ask->size = 0;
    memset(ask->fds, -1, sizeof(ask->fds));
    list_init(&ask->link);
    list_push_back(&service->asks, &ask->link);
    service->ask_count++;
    struct guest *guest = service->guest;
    if (!guest_send(guest, question, sizeof(*question))) {
        ask->size = -1;
        pthread_mutex_unlock(&service->mutex);
        service_lost(service, guest);
        pthread_mutex_lock(&service->mutex);
    }
    bool over = service_await(service, ask->waiter, ask_over, ask, until_ns);
    list_unlink(&ask->link);
    return over;
}

/* OK: the answer is there, of at least `size_min` bytes; its descriptors are the caller's. *ret_node is set instead if this process
 * has become the node. */
static shelf_result ask_run(struct service *service, enum door_kind kind, struct door_ask *question,
                            void *answer, size_t size_min, size_t size_max, int *ret_fds,
                            struct node **ret_node) {
    uint64_t until_ns = world_monotonic_ns() + (uint64_t)service->options.commit_deadline_ms * 1000000;
    struct waiter waiter;
    list_init(&waiter.link);
    struct ask ask = {.kind = (uint16_t)kind, .answer = answer, .size_max = size_max, .waiter = &waiter};
    bool in_time = true;
    pthread_mutex_lock(&service->mutex);
    while (in_time && ask.size <= 0 && service_await(service, &waiter, may_ask, service, until_ns) &&
           service->state != SERVICE_NODE)
        in_time = ask_once(service, &ask, question, until_ns);
    *ret_node = atomic_load(&service->node);
    const char *fault =
        service->state == SERVICE_ATTACHED ? "the node did not answer in time" : service->fault;
    if (ask.size <= 0 && !*ret_node)
        detail_set("nobody serves: %s", fault);
    pthread_mutex_unlock(&service->mutex);
    if (*ret_node && ask.size <= 0)
        return SHELF_OK;
    *ret_node = NULL;
    if (ask.size <= 0)
        return SHELF_UNAVAILABLE;
    if (ret_fds)
        memcpy(ret_fds, ask.fds, sizeof(ask.fds));
    else
        descriptors_close(ask.fds);
    if ((size_t)ask.size >= size_min)
        return SHELF_OK;
    detail_set("the node's answer is too short");
    return SHELF_CORRUPT;
}

/* ---- Questions ---------------------------------------------------------------------------------------------------- */

static shelf_result region_unknown(uint32_t number, const char *name) {
    if (name)
        detail_set("there is no region \"%s\"", name);
    else
        detail_set("there is no region %u", number);
    return SHELF_NOT_FOUND;
}

/* FIND and GET. */
static shelf_result region_ask(struct service *service, const char *name, uint32_t number,
                               struct shelf_region_info *ret_info) {
    struct node *node = atomic_load(&service->node);
    struct door_ask question = {.number = number};
    struct door_region answer;
    if (name)
        memcpy(question.name, name, strlen(name) + 1);
    shelf_result result = SHELF_OK;
    if (!node)
        result = ask_run(service, name ? DOOR_FIND : DOOR_GET, &question, &answer, sizeof(answer),
                         sizeof(answer), NULL, &node);
    if (result != SHELF_OK)
        return result;
    if (node)
        return (name ? node_region_find(node, name, ret_info) : node_region_get(node, number, ret_info))
                   ? SHELF_OK
                   : region_unknown(number, name);
    if (answer.result != SHELF_OK)
        return answer.result == SHELF_NOT_FOUND ? region_unknown(number, name) : (shelf_result)answer.result;
    answer.info.name[SHELF_NAME_MAX] = '\0';
    *ret_info = answer.info;
    return SHELF_OK;
}

shelf_result service_region_find(struct service *service, const char *name,
                                 struct shelf_region_info *ret_info) {
    return region_ask(service, name, 0, ret_info);
}

shelf_result service_region_get(struct service *service, uint32_t region,
                                struct shelf_region_info *ret_info) {
    return region_ask(service, NULL, region, ret_info);
}

static void pause_ns(uint64_t time_ns) {
    (void)nanosleep(&(struct timespec){.tv_nsec = (long)time_ns}, NULL);
}

shelf_result service_confirm(struct service *service) {
    enum { AGAIN_NS = 2000000 };
    uint64_t until_ns = world_monotonic_ns() + (uint64_t)service->options.commit_deadline_ms * 1000000;
    struct node *node =
        atomic_load(&service->node); /* a program never is a node of a cluster: it sees its own */
    struct door_ask question = {0};
    struct door_index answer = {.result = SHELF_OK};
    shelf_result result = SHELF_OK;
    while (result == SHELF_OK && !node) {
        result =
            ask_run(service, DOOR_FRESH, &question, &answer, sizeof(answer), sizeof(answer), NULL, &node);
        if (result != SHELF_OK || node || answer.result != SHELF_UNAVAILABLE ||
            world_monotonic_ns() >= until_ns)
            break;
        pause_ns(AGAIN_NS); /* nobody leads at the moment, or the set is being changed */
    }
    if (result == SHELF_OK && answer.result != SHELF_OK)
        detail_set("no majority of the cluster has confirmed that what is read is the latest: %s",
                   shelf_result_text((shelf_result)answer.result));
    return result == SHELF_OK ? (shelf_result)answer.result : result;
}

shelf_result service_info(struct service *service, struct shelf_info *ret_info) {
    struct node *node = atomic_load(&service->node);
    struct door_ask question = {0};
    struct door_info answer;
    shelf_result result = SHELF_OK;
    if (!node)
        result = ask_run(service, DOOR_INFO, &question, &answer, sizeof(answer), sizeof(answer), NULL, &node);
    if (result == SHELF_OK && node)
        node_info(node, ret_info);
    else if (result == SHELF_OK)
        *ret_info = answer.info;
    return result;
}

/* It comes from another process: texts end, counts are what there is room for. */
static void cluster_info_tame(struct shelf_cluster_info *info) {
    info->name[sizeof(info->name) - 1] = '\0';
    info->coordinator[sizeof(info->coordinator) - 1] = '\0';
    info->coordinator_text[sizeof(info->coordinator_text) - 1] = '\0';
    info->node_count = (uint32_t)min_u64(info->node_count, SHELF_NODES_MAX);
    for (uint32_t i = 0; i < info->node_count; i++)
        info->nodes[i].address[SHELF_ADDRESS_MAX - 1] = '\0';
}

shelf_result service_cluster(struct service *service, struct shelf_cluster_info *ret_info) {
    struct node *node = atomic_load(&service->node);
    struct door_ask question = {0};
    struct door_cluster answer = {.result = SHELF_NOT_FOUND}; /* a program never is a node of a cluster */
    shelf_result result = SHELF_OK;
    if (!node)
        result =
            ask_run(service, DOOR_CLUSTER, &question, &answer, sizeof(answer), sizeof(answer), NULL, &node);
    if (result != SHELF_OK)
        return result;
    if (answer.result != SHELF_OK) {
        detail_set("the node is alone: it belongs to no cluster");
        return (shelf_result)answer.result;
    }
    cluster_info_tame(&answer.info);
    *ret_info = answer.info;
    return SHELF_OK;
}

shelf_result service_checkpoint(struct service *service, uint64_t *ret_index) {
    struct node *node = atomic_load(&service->node);
    struct door_ask question = {0};
    struct door_index answer;
    shelf_result result = SHELF_OK;
    if (!node)
        result = ask_run(service, DOOR_CHECKPOINT, &question, &answer, sizeof(answer), sizeof(answer), NULL,
                         &node);
    if (result == SHELF_OK && node)
        return node_checkpoint(node, ret_index);
    if (result != SHELF_OK)
        return result;
    if (answer.result == SHELF_OK && ret_index)
        *ret_index = answer.index;
    else if (answer.result != SHELF_OK)
        detail_set("%s", shelf_result_text((shelf_result)answer.result));
    return (shelf_result)answer.result;
}

shelf_result service_region_list(struct service *service, struct shelf_region_info *ret_infos,
                                 size_t count_max, size_t *ret_count) {
    struct node *node = atomic_load(&service->node);
    struct door_ask question = {0};
    struct door_regions answer = {0};
    size_t have = 0;
    do {
        shelf_result result = SHELF_OK;
        if (!node)
            result = ask_run(service, DOOR_LIST, &question, &answer, offsetof(struct door_regions, infos),
                             sizeof(answer), NULL, &node);
        if (result != SHELF_OK)
            return result;
        if (node) {
            *ret_count = node_region_list(node, ret_infos, count_max);
            return SHELF_OK;
        }
        size_t count = min_u64(answer.count, DOOR_ITEMS_MAX);
        if (count > 0)
            question.number = answer.infos[count - 1].region + 1u;
        for (size_t i = 0; i < count && have < count_max; i++)
            ret_infos[have++] = answer.infos[i];
    } while (answer.count > 0 && have < count_max && have < answer.total);
    *ret_count = answer.total;
    return SHELF_OK;
}

shelf_result service_clients(struct service *service, struct shelf_client_info *ret_infos, size_t count_max,
                             size_t *ret_count) {
    struct node *node = atomic_load(&service->node);
    struct door_ask question = {0};
    struct door_clients answer = {0};
    size_t have = 0;
    do {
        shelf_result result = SHELF_OK;
        if (!node)
            result = ask_run(service, DOOR_CLIENTS, &question, &answer, offsetof(struct door_clients, infos),
                             sizeof(answer), NULL, &node);
        if (result != SHELF_OK)
            return result;
        if (node) {
            *ret_count = service->door ? door_clients(service->door, 0, ret_infos, count_max) : 0;
            return SHELF_OK;
        }
        size_t count = min_u64(answer.count, DOOR_ITEMS_MAX);
        if (count > 0)
            question.number = answer.infos[count - 1].client + 1u;
        for (size_t i = 0; i < count && have < count_max; i++)
            ret_infos[have++] = answer.infos[i];
    } while (answer.count > 0 && have < count_max && have < answer.total);
    *ret_count = answer.total;
    return SHELF_OK;
}

shelf_result service_region_attach(struct service *service, const struct replica *replica,
                                   shelf_region region) {
    struct door_ask question = {.number = region};
    struct door_region answer;
    struct node *node;
    int fds[GUEST_FDS_MAX] = {-1, -1, -1};
    shelf_result result =
        ask_run(service, DOOR_MAP, &question, &answer, sizeof(answer), sizeof(answer), fds, &node);
    if (result != SHELF_OK)
        return result;
    pthread_mutex_lock(&service->mutex);
    struct guest *guest = service->guest;
    bool present = !node && guest && &guest->replica == replica;
    pthread_mutex_unlock(&service->mutex);
    if (present && answer.result == SHELF_OK && answer.info.region == region)
        return guest_region_map(guest, &answer.info, fds);
    descriptors_close(fds);
    if (!present) {
        detail_set("region %u was not mapped before the node went; begin the transaction again", region);
        return SHELF_CONFLICT;
    }
    if (answer.result == SHELF_DENIED)
        detail_set("owner, group and mode of region %u do not let this program read it", region);
    else
        (void)region_unknown(region, NULL);
    return answer.result == SHELF_OK ? SHELF_CORRUPT : (shelf_result)answer.result;
}
