// SPDX-License-Identifier: Apache-2.0
/* cmd_clients.c: `shelf clients`: which programs are attached to a node, and what they hold. */
#include <stdlib.h>

#include "cmd/arguments.h"
#include "cmd/listing.h"
#include "cmd/output.h"
#include "cmd/shelf_use.h"

#define CLIENTS_MAX 4096u

static json_t *client_json(const struct shelf_client_info *info) {
    return json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "client",
                     (json_int_t)info->client, "program", info->program, "process", (json_int_t)info->process,
                     "owner", (json_int_t)info->owner, "group", (json_int_t)info->group, "attached_ms",
                     (json_int_t)info->attached_ms, "commits", (json_int_t)info->commits, "bytes",
                     (json_int_t)info->bytes, "pending", (json_int_t)info->pending, "pending_bytes",
                     (json_int_t)info->pending_bytes, "regions", (json_int_t)info->regions, "waiters",
                     (json_int_t)info->waiters);
}

static int clients_json(const struct shelf_client_info *infos, size_t count, size_t total) {
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        (void)json_array_append_new(list, client_json(&infos[i]));
    }
    return json_finish(stdout, json_pack("{s:I, s:o}", "count", (json_int_t)total, "clients", list));
}

static const char *since_text(uint64_t ms, char *ret_text, size_t size) {
    uint64_t seconds = ms / 1000;
    if (seconds < 100) {
        (void)snprintf(ret_text, size, "%llu s", (unsigned long long)seconds);
    } else if (seconds < 6000) {
        (void)snprintf(ret_text, size, "%llu min", (unsigned long long)(seconds / 60));
    } else {
        (void)snprintf(ret_text, size, "%llu h", (unsigned long long)(seconds / 3600));
    }
    return ret_text;
}

static void client_print(const struct shelf_client_info *info) {
    char owner[40], since[32], bytes[SIZE_TEXT_MAX], pending[SIZE_TEXT_MAX];
    (void)printf("%6llu  %-16.32s  %8u  %-12s  %8s  %9llu  %10s  %7u  %7u (%s)  %7u\n",
                 (unsigned long long)info->client, info->program, info->process,
                 owner_text(info->owner, owner, sizeof(owner)),
                 since_text(info->attached_ms, since, sizeof(since)), (unsigned long long)info->commits,
                 size_text(info->bytes, bytes), info->regions, info->pending,
                 size_text(info->pending_bytes, pending), info->waiters);
}

static int clients_show(const struct call *call, shelf *s) {
    const char *path = path_plain(call_argument(call, 0));
    size_t total = 0;
    struct shelf_client_info *infos = calloc(CLIENTS_MAX, sizeof(*infos));
    if (!infos) {
        return fail(call, SHELF_NO_MEMORY, "no memory");
    }
    shelf_result result = shelf_client_list(s, infos, CLIENTS_MAX, &total);
    size_t count = total < CLIENTS_MAX ? total : CLIENTS_MAX;
    int code = SHELF_OK;
    if (result != SHELF_OK) {
        code = fail_call(call, result, "%s: its node cannot be asked", path);
    } else if (call->json) {
        code = clients_json(infos, count, total);
    } else {
        (void)printf("%s%6s  %-16s  %8s  %-12s  %8s  %9s  %10s  %7s  %-17s  %7s%s\n",
                     style(stdout, STYLE_BOLD), "client", "program", "process", "user", "since", "commits",
                     "submitted", "regions", "under way", "waiting", style(stdout, STYLE_PLAIN));
        for (size_t i = 0; i < count; i++) {
            client_print(&infos[i]);
        }
    }
    free(infos);
    return code;
}

int cmd_clients(const struct call *call) {
    shelf *s;
    const char *path = call_argument(call, 0);
    shelf_result result = shelf_use_attach(path, &s);
    if (result == SHELF_NOT_FOUND && !path_is_socket(path)) {
        return fail(call, SHELF_UNAVAILABLE, "%s: no process serves it now, so none is attached",
                    path_plain(path));
    }
    return result == SHELF_OK ? close_finish(call, s, clients_show(call, s))
                              : shelf_use_refuse(call, path, result);
}
