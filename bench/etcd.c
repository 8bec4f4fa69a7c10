// SPDX-License-Identifier: Apache-2.0
// etcd.c: members of etcd on loopback, with their data in the scratch directory and all settings as they come, except for
// the log, which is off. They die with the benchmark.
#include "bench.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { URL_MAX = 64, BEGINS_MAX = 5 };

struct answer {
    char bytes[4096];
    size_t size;
};

static size_t on_answer(char *bytes, size_t one, size_t size, void *context) {
    struct answer *a = context;
    if (size * one > sizeof(a->bytes) - a->size)
        return 0;
    memcpy(a->bytes + a->size, bytes, size * one);
    a->size += size * one;
    return size * one;
}

// Asks a member who leads; true if it says that it does.
static bool member_leads(const struct etcd_member *m) {
    struct answer answer = {.size = 0};
    char url[URL_MAX + 32];
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/v3/maintenance/status", m->port);
    CURL *easy = curl_easy_init();
    if (!easy)
        fail("no memory for curl");
    (void)curl_easy_setopt(easy, CURLOPT_URL, url);
    (void)curl_easy_setopt(easy, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 5000L);
    (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "{}");
    (void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_answer);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer);
    CURLcode code = curl_easy_perform(easy);
    curl_easy_cleanup(easy);
    if (code != CURLE_OK)
        return false;

    json_t *status = json_loadb(answer.bytes, answer.size, 0, NULL);
    const char *leader = NULL, *self = NULL;
    (void)json_unpack(status, "{s:s, s:{s:s}}", "leader", &leader, "header", "member_id", &self);
    bool leads = leader && self && strcmp(leader, self) == 0;
    json_decref(status);
    return leads;
}

_Noreturn static void member_exec(const struct etcd *e, size_t position) {
    const struct etcd_member *m = &e->members[position];
    char name[32], data[32], client[URL_MAX], peer[URL_MAX], members[ETCD_MEMBERS_MAX * URL_MAX] = "";
    for (size_t i = 0, size = 0; i < e->count; i++)
        size += (size_t)snprintf(members + size, sizeof(members) - size, "%sm%zu=http://127.0.0.1:%u",
                                 i ? "," : "", i, e->members[i].peer_port);
    (void)snprintf(name, sizeof(name), "m%zu", position);
    (void)snprintf(data, sizeof(data), "etcd.%zu", position);
    (void)snprintf(client, sizeof(client), "http://127.0.0.1:%u", m->port);
    (void)snprintf(peer, sizeof(peer), "http://127.0.0.1:%u", m->peer_port);
    process_quiet();
    if (chdir(settings.dir) == 0)
        (void)execlp("etcd", "etcd", "--name", name, "--data-dir", data, "--listen-client-urls", client,
                     "--advertise-client-urls", client, "--listen-peer-urls", peer,
                     "--initial-advertise-peer-urls", peer, "--initial-cluster", members, "--logger", "zap",
                     "--log-level", "panic", "--log-outputs", "/dev/null", (char *)NULL);
    _exit(127);
}

// Until one of them leads; false if one has ended.
static bool leader_wait(struct etcd *e) {
    for (uint64_t until = now_ns() + 20000000000u; now_ns() < until; (void)usleep(10000)) {
        for (size_t i = 0; i < e->count; i++) {
            if (!process_lives(e->members[i].process))
                return false;
            if (member_leads(&e->members[i])) {
                e->leader = i;
                return true;
            }
        }
    }
    fail("etcd does not answer");
}

void etcd_begin(struct etcd *e, size_t count) {
    progress("starting etcd");
    for (size_t begins = 0; begins < BEGINS_MAX; begins++) {
        *e = (struct etcd){.count = count};
        for (size_t i = 0; i < count; i++) {
            e->members[i].port = loopback_port();
            e->members[i].peer_port = loopback_port();
        }
        for (size_t i = 0; i < count; i++) {
            e->members[i].process = process_begin();
            if (e->members[i].process == 0)
                member_exec(e, i);
        }
        if (leader_wait(e))
            return;
        etcd_end(e);
    }
    fail("etcd ends at once (Debian package etcd-server)");
}

void etcd_end(struct etcd *e) {
    for (size_t i = 0; i < e->count; i++) {
        char data[32];
        process_end(e->members[i].process);
        (void)snprintf(data, sizeof(data), "etcd.%zu", i);
        scratch_remove(data);
    }
}
