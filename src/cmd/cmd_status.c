// SPDX-License-Identifier: Apache-2.0
/*
 * cmd_status.c: `shelf status`: what a shelf is and does, in plain words. Never becomes the node: if there is none, it tells what the
 * files say.
 */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cmd/arguments.h"
#include "cmd/listing.h"
#include "cmd/output.h"
#include "cmd/shelf_use.h"
#include "cmd/status_cluster.h"
#include "world/world.h"

struct status {
    const struct call *call;
    const char *path;
    shelf *s; /* NULL: nobody serves the shelf */
    struct listing listing;
    struct shelf_info info;
    struct shelf_staleness staleness;
    bool answered; /* by the node, this time */
    bool clustered;
    struct shelf_cluster_info cluster;
    size_t clients;
    char text[DISK_TEXT_MAX];
};

static shelf_result status_look(struct status *status) {
    status->listing.count = 0;
    if (!status->s) {
        return listing_checkpoint(status->path, &status->listing, status->text);
    }
    shelf_result result = shelf_staleness_get(status->s, &status->staleness);
    if (result != SHELF_OK) {
        return result;
    }
    status->answered = status->staleness.connected && shelf_info_get(status->s, &status->info) == SHELF_OK &&
                       listing_open(status->s, &status->listing) == SHELF_OK &&
                       shelf_client_list(status->s, NULL, 0, &status->clients) == SHELF_OK;
    status->clustered = status->answered && shelf_cluster_get(status->s, &status->cluster) == SHELF_OK;
    return SHELF_OK;
}

/* ---- Answers ------------------------------------------------------------------------------------------------------- */

static uint64_t regions_bytes(const struct listing *listing) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < listing->count; i++) {
        bytes += listing->regions[i].size;
    }
    return bytes;
}

static const char *backend_name(const struct status *status) {
    return status->info.backend == SHELF_BACKEND_URING ? "io_uring" : "plain writes";
}

static int status_json(const struct status *status) {
    const struct shelf_info *info = &status->info;
    if (!status->s) {
        return json_finish(stdout, json_pack("{s:s, s:b, s:I, s:I, s:I, s:I}", "path", status->path, "served",
                                             0, "checkpoint", (json_int_t)status->listing.index, "epoch",
                                             (json_int_t)status->listing.epoch, "regions",
                                             (json_int_t)status->listing.count, "regions_bytes",
                                             (json_int_t)regions_bytes(&status->listing)));
    }
    json_t *object = json_pack("{s:s, s:b, s:b, s:I, s:I}", "path", status->path, "served", 1, "connected",
                               status->answered, "index", (json_int_t)status->staleness.index, "age_ms",
                               (json_int_t)status->staleness.age_ms);
    if (status->answered) {
        json_t *more =
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:I}", "state",
                      shelf_result_name(info->state), "epoch", (json_int_t)info->epoch, "checkpoint",
                      (json_int_t)info->checkpoint, "records", (json_int_t)info->records, "commits",
                      (json_int_t)info->commits, "conflicts", (json_int_t)info->conflicts, "log_bytes",
                      (json_int_t)info->log_bytes, "log_bytes_live", (json_int_t)info->log_bytes_live,
                      "backend", info->backend == SHELF_BACKEND_URING ? "uring" : "plain", "clients",
                      (json_int_t)status->clients, "regions", (json_int_t)status->listing.count,
                      "regions_bytes", (json_int_t)regions_bytes(&status->listing));
        (void)json_object_update(object, more);
        json_decref(more);
    }
    if (status->clustered) {
        (void)json_object_set_new(object, "cluster", status_cluster_json(&status->cluster));
    }
    return json_finish(stdout, object);
}

static void line(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void line(const char *name, const char *format, ...) {
    va_list arguments;
    (void)printf("  %-12s", name);
    va_start(arguments, format);
    (void)vprintf(format, arguments);
    va_end(arguments);
    (void)printf("%s\n", style(stdout, STYLE_PLAIN));
}

static void state_print(const struct status *status) {
    switch (status->info.state) {
    case SHELF_OK:
        line("state", "%sall is well", style(stdout, STYLE_GOOD));
        break;
    case SHELF_NO_SPACE:
        line("state", "%sthe disk is full: reads go on, writers are told NO_SPACE; free some space",
             style(stdout, STYLE_BAD));
        break;
    default:
        line("state", "%sthe disk failed, the node has stopped; see its log, then start it again",
             style(stdout, STYLE_BAD));
    }
}

static void node_print(const struct status *status) {
    const struct shelf_info *info = &status->info;
    char bytes[SIZE_TEXT_MAX], live[SIZE_TEXT_MAX], size[SIZE_TEXT_MAX];
    if (status->clustered) {
        status_cluster_print(&status->cluster);
    }
    if (!status->clustered || info->state != SHELF_OK) {
        state_print(status);
    }
    line("regions", "%zu, %s in all", status->listing.count,
         size_text(regions_bytes(&status->listing), size));
    line("programs", "%zu attached, this one among them (`shelf clients` lists them)", status->clients);
    if (status->clustered) {
        line("index", "%llu", (unsigned long long)info->applied);
    } else {
        line("index", "%llu, epoch %llu", (unsigned long long)info->applied, (unsigned long long)info->epoch);
    }
    line("checkpoint", "at index %llu; a restart would replay %s of log",
         (unsigned long long)info->checkpoint, size_text(info->log_bytes_live, live));
    line("commits", "%llu since it started, %llu refused because of conflicts",
         (unsigned long long)info->commits, (unsigned long long)info->conflicts);
    line("log", "%s in %llu records since then, by %s", size_text(info->log_bytes, bytes),
         (unsigned long long)info->records, backend_name(status));
}

static int status_text(const struct status *status) {
    char size[SIZE_TEXT_MAX];
    (void)printf("%s%s%s: ", style(stdout, STYLE_BOLD), status->path, style(stdout, STYLE_PLAIN));
    if (!status->s && status->listing.owner == 0 && world_is_member(status->path)) {
        (void)printf("of a node of a cluster that does not run; `shelfd --data %s --etcd ...` starts it\n",
                     status->path);
    } else if (!status->s && status->listing.owner == 0) {
        (void)printf("no process serves it now; the next program that opens it does, or `shelfd --data %s`\n",
                     status->path);
    } else if (!status->s) {
        (void)printf("process %ld works in it, and lets no others attach\n", status->listing.owner);
    } else if (status->answered) {
        (void)printf("served\n");
        node_print(status);
        return SHELF_OK;
    } else {
        (void)printf("its node is gone since %llu ms; programs go on reading index %llu\n",
                     (unsigned long long)status->staleness.age_ms,
                     (unsigned long long)status->staleness.index);
        return SHELF_OK;
    }
    line("checkpoint", "at index %llu, epoch %llu; the log may have more",
         (unsigned long long)status->listing.index, (unsigned long long)status->listing.epoch);
    line("regions", "%zu, %s in all, as of then", status->listing.count,
         size_text(regions_bytes(&status->listing), size));
    return SHELF_OK;
}

/* ---- Once, or again and again -------------------------------------------------------------------------------------- */

static int status_show(struct status *status) {
    shelf_result result = status_look(status);
    if (result == SHELF_NOT_FOUND) {
        return fail(status->call, result, "%s: no shelf is there; `shelf create %s` makes one", status->path,
                    status->path);
    }
    if (result != SHELF_OK) {
        return fail(status->call, result, "%s: %s", status->path,
                    status->text[0] ? status->text : shelf_result_text(result));
    }
    return status->call->json ? status_json(status) : status_text(status);
}

static void status_attach(struct status *status) {
    if (!status->s && shelf_use_attach(status->path, &status->s) != SHELF_OK) {
        status->s = NULL;
    }
}

static int status_watch(struct status *status) {
    bool screen = isatty(STDOUT_FILENO) && !status->call->json;
    int code = SHELF_OK;
    interrupt_watch();
    while (code == SHELF_OK && !interrupt_seen() && !ferror(stdout)) {
        (void)fputs(screen ? "\033[H\033[2J" : "", stdout);
        status_attach(status);
        code = status_show(status);
        (void)fputs(screen ? "\n(every second, until Ctrl-C)\n" : "", stdout);
        (void)fflush(stdout);
        if (code == SHELF_OK && !interrupt_seen()) {
            (void)nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
        }
    }
    return code;
}

int cmd_status(const struct call *call) {
    struct status *status = calloc(1, sizeof(*status));
    if (!status) {
        return fail(call, SHELF_NO_MEMORY, "no memory");
    }
    status->call = call;
    status->path = path_plain(call_argument(call, 0));
    shelf_result result = shelf_use_attach(status->path, &status->s);
    int code;
    if (result != SHELF_OK && (path_is_socket(status->path) || result != SHELF_NOT_FOUND)) {
        code = shelf_use_refuse(call, status->path, result);
    } else {
        code = call_option(call, "watch") ? status_watch(status) : status_show(status);
    }
    if (status->s) {
        (void)shelf_use_close(status->s);
    }
    free(status);
    return code;
}
