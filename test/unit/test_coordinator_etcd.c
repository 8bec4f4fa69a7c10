// SPDX-License-Identifier: Apache-2.0
//
// What only etcd can do to a node: restarts, silence, compaction, requests that arrive late, several endpoints, users, TLS,
// and servers that are no etcd at all.

#include "coordinator_fixture.h"

static void told_until(struct bed *bed, uint32_t node, uint64_t revision) {
    uint64_t told = 0;
    struct coordinator_news news;
    BED_UNTIL(bed, node,
              ((void)(news_take(bed, node, &news) && register_id_same(news.id, group_0) &&
                      (assert_true(news.state.revision > told && news.state.revision <= revision),
                       told = news.state.revision)),
               told == revision));
}

static struct coordinator_status status_of(const struct bed *bed, uint32_t node) {
    struct coordinator_status status;
    coordinator_status_get(bed->coordinators[node], &status);
    return status;
}

// Opens a node of its own making, with these endpoints.
static void node_open_at(struct bed *bed, uint32_t node, const char *const *endpoints, uint32_t count) {
    char path[400], text[COORDINATOR_TEXT_MAX] = "";
    node_directory(bed, node, path);
    struct coordinator_etcd_options options = {.endpoint_count = count,
                                               .cluster = bed->cluster,
                                               .directory = path,
                                               .timeout_ms = bed->timeout_ms,
                                               .probe_ms = bed->probe_ms};
    for (uint32_t i = 0; i < count; i++) {
        options.endpoints[i] = endpoints[i];
    }
    assert_int_equal(coordinator_open_etcd(&options, &bed->coordinators[node], text), SHELF_OK);
    bed->opened[node] = true;
}

// ---- Restarts and silence

static void test_news_go_on_after_a_restart(void **state) {
    struct bed bed;
    (void)state;
    bed_make(&bed, &kind_etcd, 2);
    uint64_t revision = swap_won(&bed, 0, group_0, 0, "one");
    told_until(&bed, 1, revision);
    BED_UNTIL(&bed, 1, status_of(&bed, 1).watching);
    etcd_stop(bed.server, SIGKILL);
    BED_UNTIL(&bed, 1, !bed_reachable(&bed, 1));
    assert_false(bed_refused(&bed, 1));
    assert_false(status_of(&bed, 1).watching);
    etcd_start(bed.server);
    BED_UNTIL(&bed, 0, bed_reachable(&bed, 0));
    revision = swap_won(&bed, 0, group_0, revision, "two");
    told_until(&bed, 1, revision);
    BED_UNTIL(&bed, 1, bed_reachable(&bed, 1) && status_of(&bed, 1).watching);
    bed_free(&bed);
}

static void test_a_stopped_etcd_does_not_stop_us(void **state) {
    struct bed bed;
    struct coordinator_ask get = {.act = COORDINATOR_GET, .id = group_0}, swap;
    (void)state;
    bed_make(&bed, &kind_etcd, 1);
    bed.timeout_ms = 300;
    node_open(&bed, 1);
    uint64_t revision = swap_won(&bed, 0, group_0, 0, "one");
    BED_UNTIL(&bed, 1, bed_reachable(&bed, 1));
    etcd_pause(bed.server);
    assert_int_equal(ask_do(&bed, 1, &get), COORDINATOR_UNAVAILABLE);
    swap_make(&swap, group_0, revision, "two"); // it has been sent, so it may be waiting there
    assert_int_equal(ask_do(&bed, 1, &swap), COORDINATOR_UNKNOWN);
    BED_UNTIL(&bed, 1, !bed_reachable(&bed, 1));
    struct coordinator_status before = status_of(&bed, 1);
    BED_UNTIL(&bed, 1, status_of(&bed, 1).for_ms > before.for_ms + 20);
    assert_true(status_of(&bed, 1).text[0] != 0);
    assert_int_equal(kill(bed.server->pid, SIGCONT), 0);
    BED_UNTIL(&bed, 1, ask_do(&bed, 1, &swap) == COORDINATOR_OK || swap.outcome == COORDINATOR_LOST);
    assert_true(state_is(&swap.state, "two")); // by this one, or by the one before
    BED_UNTIL(&bed, 1, bed_reachable(&bed, 1));
    told_until(&bed, 0, swap.state.revision);
    bed_free(&bed);
}

static void test_news_go_on_after_cuts_and_compaction(void **state) {
    struct bed bed;
    char body[64], answer[1024];
    (void)state;
    bed_make(&bed, &kind_etcd, 2);
    uint64_t revision = swap_won(&bed, 0, group_0, 0, "one");
    told_until(&bed, 1, revision);
    for (int i = 0; i < 6; i++) {
        bool compacts = i % 2 == 1;
        etcd_cut_set(&bed, 1, compacts); // away for a while, or cut off for a moment
        atomic_store(&bed.proxies[1]->cut, true);
        for (int j = 0; j < 3; j++) {
            revision = swap_won(&bed, 0, group_0, revision, "more");
        }
        if (compacts) {
            snprintf(body, sizeof(body), "{\"revision\":\"%llu\"}", (unsigned long long)revision);
            port_post(bed.server->port, "/v3/kv/compaction", NULL, body, answer, sizeof(answer));
            assert_non_null(strstr(answer, " 200 OK"));
        }
        etcd_cut_set(&bed, 1, false);
        told_until(&bed, 1, revision);
    }
    bed_free(&bed);
}

// The connection of the watch is there, and nothing comes through it any more: a reading finds out, and there is a new one.
static void test_a_watch_that_fell_silent_is_replaced(void **state) {
    struct bed bed;
    (void)state;
    bed_make(&bed, &kind_etcd, 2);
    uint64_t revision = swap_won(&bed, 0, group_0, 0, "one");
    told_until(&bed, 1, revision);
    BED_UNTIL(&bed, 1, status_of(&bed, 1).watching);
    atomic_store(&bed.proxies[1]->mute, true);
    BED_UNTIL(&bed, 1, atomic_load(&bed.proxies[1]->muted) == 1);
    revision = swap_won(&bed, 0, group_0, revision, "two");
    told_until(&bed, 1, revision);
    BED_UNTIL(&bed, 1, atomic_load(&bed.proxies[1]->muted_closed) == 1);
    BED_UNTIL(&bed, 1, status_of(&bed, 1).watching);
    revision = swap_won(&bed, 0, group_0, revision, "three");
    told_until(&bed, 1, revision);
    bed_free(&bed);
}

// The watch tells at once what a probe would tell later.
static void test_news_do_not_wait_for_the_probe(void **state) {
    struct bed bed;
    char path[400], endpoint[64], text[COORDINATOR_TEXT_MAX];
    (void)state;
    bed_make(&bed, &kind_etcd, 1);
    node_directory(&bed, 1, path);
    snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u/", bed.server->port);
    struct coordinator_etcd_options options = {.endpoints = {endpoint},
                                               .endpoint_count = 1,
                                               .cluster = bed.cluster,
                                               .directory = path,
                                               .probe_ms = 3600000};
    assert_int_equal(coordinator_open_etcd(&options, &bed.coordinators[1], text), SHELF_OK);
    bed.opened[1] = true;
    BED_UNTIL(&bed, 1, status_of(&bed, 1).watching);
    uint64_t revision = 0;
    for (int i = 0; i < 10; i++) {
        revision = swap_won(&bed, 0, group_0, revision, "value");
        told_until(&bed, 1, revision);
    }
    bed_free(&bed);
}

// ---- Unknown outcomes

static void hold(struct bed *bed, uint32_t node) {
    atomic_store(&bed->proxies[node]->requests, 0);
    atomic_store(&bed->proxies[node]->mode, PROXY_HOLD);
}

// The second node's swap from "one" to "late" is under way, and it has been told UNKNOWN. Returns the revision of "one".
static uint64_t late_swap_begin(struct bed *bed, struct coordinator_ask *swap) {
    struct register_state found;
    bed_make(bed, &kind_etcd, 1);
    bed->timeout_ms = 300;
    node_open(bed, 1);
    uint64_t first = swap_won(bed, 0, group_0, 0, "one");
    hold(bed, 1);
    swap_make(swap, group_0, first, "late");
    assert_int_equal(ask_do(bed, 1, swap), COORDINATOR_UNKNOWN);
    get_state(bed, 0, group_0, &found); // the old state, which settles nothing
    assert_int_equal(found.revision, first);
    return first;
}

static void test_a_late_swap_loses_if_others_were_faster(void **state) {
    struct bed bed;
    struct coordinator_ask swap;
    (void)state;
    uint64_t first = late_swap_begin(&bed, &swap);
    uint64_t second = swap_won(&bed, 0, group_0, first, "two");
    atomic_store(&bed.proxies[1]->mode, PROXY_PASS);
    BED_UNTIL(&bed, 1, (ask_do(&bed, 1, &swap), swap.outcome == COORDINATOR_LOST));
    assert_true(swap.state.revision == second && state_is(&swap.state, "two"));
    bed_free(&bed);
}

static void test_a_late_swap_lands_if_nobody_was_faster(void **state) {
    struct bed bed;
    struct coordinator_ask swap;
    struct register_state found;
    (void)state;
    uint64_t first = late_swap_begin(&bed, &swap);
    atomic_store(&bed.proxies[1]->mode, PROXY_PASS);
    BED_UNTIL(&bed, 0, (get_state(&bed, 0, group_0, &found), found.revision != first));
    assert_true(state_is(&found, "late"));
    BED_UNTIL(&bed, 1, (ask_do(&bed, 1, &swap), swap.outcome == COORDINATOR_LOST));
    assert_true(swap.state.revision == found.revision && state_is(&swap.state, "late"));
    bed_free(&bed);
}

static void test_a_lost_answer_is_unknown_and_a_lost_request_too(void **state) {
    struct bed bed;
    struct coordinator_ask swap;
    struct register_state found;
    (void)state;
    bed_make(&bed, &kind_etcd, 2);
    uint64_t first = swap_won(&bed, 0, group_0, 0, "one");
    atomic_store(&bed.proxies[1]->mode, PROXY_CUT_REQUEST);
    swap_make(&swap, group_0, first, "two");
    assert_int_equal(ask_do(&bed, 1, &swap), COORDINATOR_UNKNOWN);
    get_state(&bed, 0, group_0, &found);
    assert_int_equal(found.revision, first);
    atomic_store(&bed.proxies[1]->mode, PROXY_CUT_ANSWER);
    assert_int_equal(ask_do(&bed, 1, &swap), COORDINATOR_UNKNOWN);
    BED_UNTIL(&bed, 0, (get_state(&bed, 0, group_0, &found), found.revision != first));
    assert_true(state_is(&found, "two"));
    atomic_store(&bed.proxies[1]->mode, PROXY_PASS);
    assert_int_equal(ask_do(&bed, 1, &swap), COORDINATOR_LOST);
    assert_true(swap.state.revision == found.revision && state_is(&swap.state, "two"));
    bed_free(&bed);
}

// ---- Several endpoints

static void test_an_endpoint_that_is_down_is_passed_over(void **state) {
    struct bed bed;
    uint16_t port = 0;
    char dead[64], live[64];
    (void)state;
    bed_make(&bed, &kind_etcd, 1);
    close(listener_open(&port));
    snprintf(dead, sizeof(dead), "http://127.0.0.1:%u", port);
    snprintf(live, sizeof(live), "http://127.0.0.1:%u", bed.proxies[0]->port);
    for (int i = 0; i < 2; i++) {
        const char *endpoints[] = {i == 0 ? dead : live, i == 0 ? live : dead};
        node_open_at(&bed, 1, endpoints, 2);
        uint64_t revision = swap_won(&bed, 1, (struct register_id){REGISTER_NODE, (uint64_t)i}, 0, "won");
        (void)swap_won(&bed, 1, (struct register_id){REGISTER_NODE, (uint64_t)i}, revision, "won again");
        assert_string_equal(status_of(&bed, 1).place, live);
        node_close(&bed, 1);
    }
    bed_free(&bed);
}

static void test_fail_over_to_another_endpoint_and_news_go_on(void **state) {
    struct bed bed;
    char first[64], second[64];
    struct coordinator_ask swap;
    struct register_state found;
    (void)state;
    bed_make(&bed, &kind_etcd, 1);
    bed.timeout_ms = 1000;
    bed.proxies[1] = proxy_start(bed.server->port);
    bed.proxies[2] = proxy_start(bed.server->port);
    snprintf(first, sizeof(first), "http://127.0.0.1:%u", bed.proxies[1]->port);
    snprintf(second, sizeof(second), "http://127.0.0.1:%u", bed.proxies[2]->port);
    const char *const endpoints[] = {first, second};
    node_open_at(&bed, 1, endpoints, 2);
    uint64_t revision = swap_won(&bed, 0, group_0, 0, "one");
    told_until(&bed, 1, revision);
    // The present one falls silent: a get goes on to the other, a swap is unknown, and repeated there.
    bool at_first = strcmp(status_of(&bed, 1).place, first) == 0;
    struct proxy *present = bed.proxies[at_first ? 1 : 2];
    atomic_store(&present->requests, 0);
    atomic_store(&present->mode, PROXY_HOLD);
    get_state(&bed, 1, group_0, &found);
    assert_int_equal(found.revision, revision);
    swap_make(&swap, group_0, revision, "two");
    BED_UNTIL(&bed, 1, ask_do(&bed, 1, &swap) == COORDINATOR_OK || swap.outcome == COORDINATOR_LOST);
    assert_true(state_is(&swap.state, "two"));
    revision = swap_won(&bed, 0, group_0, swap.state.revision, "three");
    told_until(&bed, 1, revision);
    assert_string_equal(status_of(&bed, 1).place, at_first ? second : first);
    // And then the other one is gone altogether.
    atomic_store(&present->mode, PROXY_PASS);
    bed.kind->cut_set(&bed, at_first ? 2 : 1, true);
    revision = swap_won(&bed, 0, group_0, revision, "four");
    told_until(&bed, 1, revision);
    bed_free(&bed);
}

// What may have been done is not done a second time elsewhere.
static void test_a_swap_goes_to_one_endpoint(void **state) {
    static const int modes[] = {PROXY_CUT_REQUEST, PROXY_CUT_ANSWER};
    struct bed bed;
    char first[64], second[64];
    struct coordinator_ask swap;
    (void)state;
    bed_make(&bed, &kind_etcd, 1);
    bed.probe_ms = 3600000; // nothing but the swap changes the endpoint in use
    bed.proxies[1] = proxy_start(bed.server->port);
    bed.proxies[2] = proxy_start(bed.server->port);
    snprintf(first, sizeof(first), "http://127.0.0.1:%u", bed.proxies[1]->port);
    snprintf(second, sizeof(second), "http://127.0.0.1:%u", bed.proxies[2]->port);
    const char *const endpoints[] = {first, second};
    for (uint64_t i = 0; i < 4; i++) {
        struct register_id id = {REGISTER_NODE, i};
        struct register_state found;
        node_open_at(&bed, 1, endpoints, 2);
        BED_UNTIL(&bed, 1, status_of(&bed, 1).watching);
        assert_string_equal(status_of(&bed, 1).place, first);
        atomic_store(&bed.proxies[1]->mode, modes[i % 2]);
        swap_make(&swap, id, 0, "once");
        assert_int_equal(ask_do(&bed, 1, &swap), COORDINATOR_UNKNOWN);
        if (modes[i % 2] == PROXY_CUT_ANSWER) {
            BED_UNTIL(&bed, 0, (get_state(&bed, 0, id, &found), found.revision != 0));
        }
        uint32_t outcome = ask_do(&bed, 1, &swap); // by the other one
        assert_int_equal(outcome, modes[i % 2] == PROXY_CUT_ANSWER ? COORDINATOR_LOST : COORDINATOR_OK);
        assert_true(state_is(&swap.state, "once"));
        assert_string_equal(status_of(&bed, 1).place, second);
        node_close(&bed, 1);
        atomic_store(&bed.proxies[1]->mode, PROXY_PASS);
    }
    bed_free(&bed);
}

// ---- Users and TLS

static void etcd_post(const struct etcd_server *server, const char *path, const char *body) {
    char answer[2048];
    port_post(server->port, path, NULL, body, answer, sizeof(answer));
    assert_non_null(strstr(answer, " 200 OK"));
}

static void private_server(struct bed *bed, struct etcd_server *server) {
    *server = (struct etcd_server){0};
    snprintf(server->directory, sizeof(server->directory), "%s/private", bed->fixture->directory);
    etcd_start(server);
}

static void test_users(void **state) {
    struct bed bed;
    struct etcd_server server;
    struct coordinator_ask get = {.act = COORDINATOR_GET, .id = group_0};
    char path[400], endpoint[64], text[COORDINATOR_TEXT_MAX];
    (void)state;
    bed_make(&bed, &kind_etcd, 0);
    private_server(&bed, &server);
    node_directory(&bed, 0, path);
    snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", server.port);
    struct coordinator_etcd_options options = {.endpoints = {endpoint},
                                               .endpoint_count = 1,
                                               .cluster = bed.cluster,
                                               .directory = path,
                                               .user = "root",
                                               .password = "pass\"\\word",
                                               .timeout_ms = bed.timeout_ms,
                                               .probe_ms = 100};
    // At first etcd knows no users, then it is told of them, and a restart makes it forget who has logged in.
    assert_int_equal(coordinator_open_etcd(&options, &bed.coordinators[0], text), SHELF_OK);
    bed.opened[0] = true;
    uint64_t revision = swap_won(&bed, 0, group_0, 0, "open to all");
    etcd_post(&server, "/v3/auth/user/add", "{\"name\":\"root\",\"password\":\"pass\\\"\\\\word\"}");
    etcd_post(&server, "/v3/auth/role/add", "{\"name\":\"root\"}");
    etcd_post(&server, "/v3/auth/user/grant", "{\"user\":\"root\",\"role\":\"root\"}");
    etcd_post(&server, "/v3/auth/enable", "{}");
    revision = swap_won(&bed, 0, group_0, revision, "logged in");
    etcd_stop(&server, SIGKILL);
    BED_UNTIL(&bed, 0, !bed_reachable(&bed, 0));
    etcd_start(&server);
    BED_UNTIL(&bed, 0, bed_reachable(&bed, 0));
    revision = swap_won(&bed, 0, group_0, revision, "again");
    told_until(&bed, 0, revision);
    BED_UNTIL(&bed, 0, status_of(&bed, 0).watching);

    static const char *const others[][2] = {{NULL, NULL}, {"root", "wrong"}, {"nobody", "x"}};
    for (uint32_t i = 0; i < 3; i++) {
        options.user = others[i][0];
        options.password = others[i][1];
        assert_int_equal(coordinator_open_etcd(&options, &bed.coordinators[1], text), SHELF_OK);
        bed.opened[1] = true;
        assert_int_equal(ask_do(&bed, 1, &get), COORDINATOR_REFUSED);
        BED_UNTIL(&bed, 1, bed_refused(&bed, 1));
        assert_non_null(strstr(status_of(&bed, 1).text, i == 0 ? "user name is empty" : "cannot log in"));
        node_close(&bed, 1);
    }
    bed_free(&bed);
    etcd_stop(&server, SIGKILL);
}

static void test_tls(void **state) {
    struct bed bed;
    struct etcd_server server = {.tls = true};
    struct coordinator_ask get = {.act = COORDINATOR_GET, .id = group_0};
    char path[400], endpoint[64], certificate[700], key[700], text[COORDINATOR_TEXT_MAX];
    (void)state;
    bed_make(&bed, &kind_etcd, 0);
    snprintf(server.directory, sizeof(server.directory), "%s/private", bed.fixture->directory);
    etcd_start(&server);
    node_directory(&bed, 0, path);
    snprintf(endpoint, sizeof(endpoint), "https://127.0.0.1:%u", server.port);
    snprintf(certificate, sizeof(certificate), "%s/fixtures/client/cert.pem", server.directory);
    snprintf(key, sizeof(key), "%s/fixtures/client/key.pem", server.directory);
    struct coordinator_etcd_options options = {.endpoints = {endpoint},
                                               .endpoint_count = 1,
                                               .cluster = bed.cluster,
                                               .directory = path,
                                               .ca_file = certificate,
                                               .certificate_file = certificate,
                                               .key_file = key,
                                               .timeout_ms = bed.timeout_ms,
                                               .probe_ms = 100};
    assert_int_equal(coordinator_open_etcd(&options, &bed.coordinators[0], text), SHELF_OK);
    bed.opened[0] = true;
    BED_UNTIL(&bed, 0, bed_reachable(&bed, 0));
    uint64_t revision = swap_won(&bed, 0, group_0, 0, "secret");
    told_until(&bed, 0, revision);
    // Who is not told to believe that certificate does not say a word to it.
    options.ca_file = options.certificate_file = options.key_file = NULL;
    assert_int_equal(coordinator_open_etcd(&options, &bed.coordinators[1], text), SHELF_OK);
    bed.opened[1] = true;
    assert_int_equal(ask_do(&bed, 1, &get), COORDINATOR_UNAVAILABLE);
    BED_UNTIL(&bed, 1, strstr(status_of(&bed, 1).text, "certificate") != NULL);
    bed_free(&bed);
    etcd_stop(&server, SIGKILL);
}

// ---- Options and the remembering file

// Who only looks, as a command does, has no directory.
static void test_without_a_directory_nothing_is_kept(void **state) {
    struct bed bed;
    struct coordinator_news news;
    char endpoint[64], text[COORDINATOR_TEXT_MAX];
    (void)state;
    bed_make(&bed, &kind_etcd, 1);
    uint64_t revision = swap_won(&bed, 0, group_0, 0, "one");
    snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", bed.server->port);
    struct coordinator_etcd_options options = {
        .endpoints = {endpoint}, .endpoint_count = 1, .cluster = bed.cluster, .timeout_ms = bed.timeout_ms};
    assert_int_equal(coordinator_open_etcd(&options, &bed.coordinators[1], text), SHELF_OK);
    bed.opened[1] = true;
    BED_UNTIL(&bed, 1, news_take(&bed, 1, &news));
    assert_true(news.kind == NEWS_CHANGED && news.state.revision == revision);
    BED_UNTIL(&bed, 1, news_take(&bed, 1, &news));
    assert_int_equal(news.kind, NEWS_COMPLETE);
    bed_free(&bed);
}

static void test_wrong_options_are_refused(void **state) {
    struct bed bed;
    struct coordinator *coordinator = NULL;
    char path[400], none[500], text[COORDINATOR_TEXT_MAX], longest[9000];
    (void)state;
    bed_make(&bed, &kind_etcd, 0);
    node_directory(&bed, 0, path);
    snprintf(none, sizeof(none), "%s/none", path);
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = 0;
    const struct coordinator_etcd_options right = {
        .endpoints = {"http://127.0.0.1:1"}, .endpoint_count = 1, .cluster = "c", .directory = path};
    struct coordinator_etcd_options wrong[10];
    for (size_t i = 0; i < 10; i++) {
        wrong[i] = right;
    }
    wrong[0].endpoint_count = 0;
    wrong[1].endpoint_count = COORDINATOR_ENDPOINTS_MAX + 1;
    wrong[2].endpoints[0] = "file:///etc/passwd";
    wrong[3].endpoints[0] = longest;
    wrong[4].cluster = "";
    wrong[5].cluster = "a/b";
    wrong[6].cluster = longest;
    wrong[7].user = "someone";
    wrong[8].user = "someone", wrong[8].password = longest;
    wrong[9].user = "\xff", wrong[9].password = "";
    for (size_t i = 0; i < 10; i++) {
        text[0] = 0;
        assert_int_equal(coordinator_open_etcd(&wrong[i], &coordinator, text), SHELF_INVALID);
        assert_true(text[0] != 0);
    }
    struct coordinator_etcd_options elsewhere = right;
    elsewhere.directory = none;
    assert_int_equal(coordinator_open_etcd(&elsewhere, &coordinator, text), SHELF_NOT_FOUND);
    assert_non_null(strstr(text, none));
    assert_null(coordinator);
    bed_free(&bed);
}

static void test_a_damaged_memory_is_refused(void **state) {
    struct bed bed;
    struct coordinator *coordinator = NULL;
    char path[400], file[500], text[COORDINATOR_TEXT_MAX];
    (void)state;
    bed_make(&bed, &kind_etcd, 1);
    (void)swap_won(&bed, 0, group_0, 0, "one");
    node_close(&bed, 0);
    node_directory(&bed, 0, path);
    snprintf(file, sizeof(file), "%s/coordinator", path);
    int fd = open(file, O_RDWR | O_CLOEXEC);
    for (off_t slot = 0; slot < 2; slot++) {
        assert_int_equal(pwrite(fd, "?", 1, slot * 4096 + 100), 1);
    }
    close(fd);
    struct coordinator_etcd_options options = {
        .endpoints = {"http://127.0.0.1:1"}, .endpoint_count = 1, .cluster = "c", .directory = path};
    assert_int_equal(coordinator_open_etcd(&options, &coordinator, text), SHELF_CORRUPT);
    assert_non_null(strstr(text, "coordinator: it is damaged"));
    bed_free(&bed);
}

// Somebody has deleted the configuration by hand: that is no cluster without one, it is a fault.
static void test_a_deleted_configuration_is_refused(void **state) {
    struct bed bed;
    struct coordinator_ask get = {.act = COORDINATOR_GET, .id = group_0};
    char command[512];
    (void)state;
    bed_make(&bed, &kind_etcd, 1);
    (void)swap_won(&bed, 0, group_0, 0, "one");
    snprintf(command, sizeof(command),
             "ETCDCTL_API=3 etcdctl --endpoints http://127.0.0.1:%u del /shelf/%s/configuration/0 >/dev/null",
             bed.server->port, bed.cluster);
    command_run(command);
    assert_int_equal(ask_do(&bed, 0, &get), COORDINATOR_REFUSED);
    BED_UNTIL(&bed, 0, bed_refused(&bed, 0));
    assert_non_null(strstr(status_of(&bed, 0).text, "a configuration is gone"));
    snprintf(
        command, sizeof(command),
        "ETCDCTL_API=3 etcdctl --endpoints http://127.0.0.1:%u put /shelf/%s/configuration/0 one >/dev/null",
        bed.server->port, bed.cluster);
    command_run(command); // and made it anew
    assert_int_equal(ask_do(&bed, 0, &get), COORDINATOR_REFUSED);
    BED_UNTIL(&bed, 0, strstr(status_of(&bed, 0).text, "made anew") != NULL);
    bed_free(&bed);
}

static void test_others_keys_are_left_alone(void **state) {
    struct bed bed;
    char command[1024];
    uint32_t told = 0;
    struct coordinator_news news;
    (void)state;
    bed_make(&bed, &kind_etcd, 0);
    snprintf(command, sizeof(command),
             "for k in configuration/00 configuration/x configuration/ configuration/18446744073709551616 "
             "nodes/-1 nodes other "
             "nodes/1/2 ''; do ETCDCTL_API=3 etcdctl --endpoints http://127.0.0.1:%u put /shelf/%s/$k x "
             ">/dev/null || exit 1; "
             "done",
             shared_server.port, bed.cluster);
    command_run(command);
    node_open(&bed, 0);
    uint64_t revision = swap_won(&bed, 0, group_0, 0, "one");
    do {
        BED_UNTIL(&bed, 0, news_take(&bed, 0, &news));
        told++;
        assert_true(news.kind == NEWS_COMPLETE || news.state.revision == revision);
    } while (told < 2);
    assert_false(bed_refused(&bed, 0));
    bed_free(&bed);
}

// ---- Servers that are no etcd

#define HEADER "\"header\":{\"cluster_id\":\"77\",\"revision\":\"9\"}"
// base64 of "/shelf/hostile/configuration/0" and of "/shelf/hostile/nodes/1"
#define KEY      "L3NoZWxmL2hvc3RpbGUvY29uZmlndXJhdGlvbi8w"
#define KEY_NODE "L3NoZWxmL2hvc3RpbGUvbm9kZXMvMQ=="

struct fake {
    uint16_t port;
    int listener;
    const char *status; // "200 OK"
    const char *body;   // NULL: endless
    const char *watch;  // what a watch is answered
    _Atomic bool ends;
    _Atomic uint64_t sent_max; // in one endless answer
    _Atomic uint32_t watches;
    pthread_t thread;
};

static void fake_answer(struct fake *fake, int fd) {
    char request[16384], head[256];
    ssize_t size = recv(fd, request, sizeof(request) - 1, 0);
    request[size > 0 ? size : 0] = 0;
    bool watches = strstr(request, "/v3/watch") != NULL;
    const char *body = watches ? fake->watch : fake->body;
    atomic_fetch_add(&fake->watches, watches);
    snprintf(head, sizeof(head), "HTTP/1.1 %s\r\nConnection: close\r\n\r\n",
             watches ? "200 OK" : fake->status);
    (void)all_send(fd, head, strlen(head));
    if (body) { // and then until the other side has read it: a close over unread bytes would take it back
        struct pollfd fds = {.fd = fd, .events = POLLIN};
        (void)all_send(fd, body, strlen(body));
        (void)shutdown(fd, SHUT_WR);
        while (!atomic_load(&fake->ends) &&
               (poll(&fds, 1, 10) == 0 || recv(fd, request, sizeof(request), 0) > 0)) {
        }
    } else {
        memset(request, '[', sizeof(request));
        uint64_t sent = 0;
        while (!atomic_load(&fake->ends) && all_send(fd, request, sizeof(request))) {
            sent += sizeof(request);
        }
        if (sent > atomic_load(&fake->sent_max)) {
            atomic_store(&fake->sent_max, sent);
        }
    }
}

static void *fake_main(void *context) {
    struct fake *fake = context;
    while (!atomic_load(&fake->ends)) {
        struct pollfd fds = {.fd = fake->listener, .events = POLLIN};
        if (poll(&fds, 1, 10) == 1) {
            int fd = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC);
            fake_answer(fake, fd);
            close(fd);
        }
    }
    return NULL;
}

static void fake_start(struct fake *fake) {
    fake->listener = listener_open(&fake->port);
    assert_int_equal(pthread_create(&fake->thread, NULL, fake_main, fake), 0);
}

static void fake_stop(struct fake *fake) {
    atomic_store(&fake->ends, true);
    assert_int_equal(pthread_join(fake->thread, NULL), 0);
    close(fake->listener);
}

static void fake_ask(struct bed *bed, struct fake *fake, struct coordinator_ask *ask) {
    char endpoint[64];
    snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", fake->port);
    const char *const endpoints[] = {endpoint};
    node_open_at(bed, 0, endpoints, 1);
    (void)ask_do(bed, 0, ask);
}

static void test_hostile_answers_are_refused(void **state) {
    static const struct {
        const char *status, *body, *says;
    } answers[] = {
        {"200 OK", "", "not JSON"},
        {"200 OK", "hello", "not JSON"},
        {"200 OK", "{" HEADER, "not JSON"},
        {"200 OK", "[1,2,3]", "not JSON"},
        {"200 OK", "{" HEADER "," HEADER "}", "not JSON"},
        {"200 OK", "{}", "no header"},
        {"200 OK", "{\"header\":{\"cluster_id\":\"x\"}}", "no header"},
        {"200 OK", "{\"header\":{\"cluster_id\":\"-1\",\"revision\":\"9\"}}", "no header"},
        {"200 OK", "{\"header\":{\"cluster_id\":\"18446744073709551616\",\"revision\":\"9\"}}", "no header"},
        {"200 OK", "{" HEADER ",\"kvs\":5}", "no list"},
        {"200 OK", "{" HEADER ",\"kvs\":[5]}", "a key or value"},
        {"200 OK", "{" HEADER ",\"kvs\":[{\"key\":\"" KEY "\",\"value\":7}]}", "a key or value"},
        {"200 OK", "{" HEADER ",\"kvs\":[{\"key\":\"" KEY "\",\"value\":\"eA==\"}]}", "no revision"},
        {"200 OK",
         "{" HEADER ",\"kvs\":[{\"key\":\"" KEY
         "\",\"value\":\"e*==\",\"mod_revision\":\"8\",\"create_revision\":\"8\",\"version\":\"1\"}]}",
         "no base64"},
        {"200 OK",
         "{" HEADER ",\"kvs\":[{\"key\":\"" KEY
         "\",\"mod_revision\":\"8\",\"create_revision\":\"8\",\"version\":\"1\"}]}",
         "is empty"},
        {"200 OK",
         "{" HEADER ",\"kvs\":[{\"key\":\"" KEY
         "\",\"value\":\"eA==\",\"mod_revision\":\"10\",\"create_revision\":\"8\",\"version\":\"1\"}]}",
         "contradict"},
        {"200 OK",
         "{" HEADER ",\"kvs\":[{\"key\":\"" KEY
         "\",\"value\":\"eA==\",\"mod_revision\":\"8\",\"create_revision\":\"9\",\"version\":\"1\"}]}",
         "contradict"},
        {"200 OK",
         "{" HEADER ",\"kvs\":[{\"key\":\"" KEY_NODE
         "\",\"value\":\"eA==\",\"mod_revision\":\"8\",\"create_revision\":\"8\",\"version\":\"1\"}]}",
         "another register"},
        {"200 OK", "{" HEADER ",\"more\":true}", "more keys"},
        {"404 Not Found", "<html>", "error 404"},
        {"500 Oops", "", "error 500"},
        {"302 Found", "", "error 302"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        struct bed bed;
        struct fake fake = {.status = answers[i].status, .body = answers[i].body, .watch = ""};
        struct coordinator_ask get = {.act = COORDINATOR_GET, .id = group_0}, swap;
        bed_make(&bed, &kind_etcd, 0);
        snprintf(bed.cluster, sizeof(bed.cluster), "hostile");
        fake_start(&fake);
        fake_ask(&bed, &fake, &get);
        if (get.outcome != COORDINATOR_REFUSED) {
            fail_msg("answer %zu is taken for good: outcome %u", i, get.outcome);
        }
        BED_UNTIL(&bed, 0, strstr(status_of(&bed, 0).text, answers[i].says) != NULL);
        assert_true(bed_refused(&bed, 0));
        swap_make(&swap, group_0, 0, "x");
        assert_int_equal(ask_do(&bed, 0, &swap), COORDINATOR_REFUSED);
        fake_stop(&fake);
        bed_free(&bed);
    }
}

static void test_an_endless_answer_is_cut_short(void **state) {
    struct bed bed;
    struct fake fake = {.status = "200 OK", .body = NULL, .watch = ""};
    struct coordinator_ask get = {.act = COORDINATOR_GET, .id = group_0};
    (void)state;
    bed_make(&bed, &kind_etcd, 0);
    fake_start(&fake);
    fake_ask(&bed, &fake, &get);
    assert_int_equal(get.outcome, COORDINATOR_REFUSED);
    assert_non_null(strstr(status_of(&bed, 0).text, "too long"));
    fake_stop(&fake);
    assert_true(atomic_load(&fake.sent_max) <
                32u << 20); // most of it was never read, but lay in buffers of the system
    bed_free(&bed);
}

// Whatever a watch says, readings go on, and what is there is told.
static void test_hostile_watches_are_given_up(void **state) {
    static const char *const watches[] = {
        "",
        "garbage\n",
        "{}\n",
        "{\"result\":{" HEADER ",\"created\":true}}\n{\"result\":{" HEADER ",\"events\":7}}\n",
        "{\"result\":{" HEADER ",\"created\":true}}\n{\"result\":{" HEADER
        ",\"events\":[{\"type\":\"EAT\"}]}}\n",
        "{\"result\":{" HEADER ",\"created\":true}}\n{\"result\":{" HEADER
        ",\"canceled\":true,\"compact_revision\":\"9\"}}\n",
        "{\"error\":{\"message\":\"no\"}}\n",
        "{\"result\":{\"header\":{\"cluster_id\":\"78\",\"revision\":\"10\"},\"created\":true}}\n",
        NULL,
    };
    (void)state;
    for (size_t i = 0; i < sizeof(watches) / sizeof(watches[0]); i++) {
        struct bed bed;
        struct fake fake = {.status = "200 OK",
                            .watch = watches[i],
                            .body = "{" HEADER ",\"kvs\":[{\"key\":\"" KEY
                                    "\",\"value\":\"eA==\",\"mod_revision\":\"8\",\"create_revision\":\"8\","
                                    "\"version\":\"1\"}]}"};
        struct coordinator_ask get = {.act = COORDINATOR_GET, .id = group_0};
        bed_make(&bed, &kind_etcd, 0);
        snprintf(bed.cluster, sizeof(bed.cluster), "hostile");
        fake_start(&fake);
        fake_ask(&bed, &fake, &get);
        BED_UNTIL(&bed, 0, ask_do(&bed, 0, &get) == COORDINATOR_OK);
        assert_true(get.state.revision == 8 && state_is(&get.state, "x"));
        told_until(&bed, 0, 8);
        BED_UNTIL(&bed, 0, atomic_load(&fake.watches) >= 3); // it tries again
        fake_stop(&fake);
        bed_free(&bed);
    }
}

static void test_another_store_is_refused(void **state) {
    struct bed bed;
    struct fake fake = {.status = "200 OK", .body = "{" HEADER "}", .watch = ""};
    struct coordinator_ask get = {.act = COORDINATOR_GET, .id = group_0};
    (void)state;
    bed_make(&bed, &kind_etcd, 0);
    fake_start(&fake);
    fake_ask(&bed, &fake, &get);
    assert_int_equal(get.outcome, COORDINATOR_OK);
    node_close(&bed, 0);
    fake_stop(&fake);
    struct fake other = {.status = "200 OK",
                         .body = "{\"header\":{\"cluster_id\":\"78\",\"revision\":\"1000\"}}",
                         .watch = ""};
    fake_start(&other);
    fake_ask(&bed, &other, &get);
    assert_int_equal(get.outcome, COORDINATOR_REFUSED);
    assert_non_null(strstr(status_of(&bed, 0).text, "another store"));
    fake_stop(&other);
    bed_free(&bed);
}

// The same store with the same registers, at an older revision: it has gone back, though nothing else shows it.
static void test_an_older_revision_is_refused(void **state) {
    static const char *const answers[] = {"{" HEADER "}",
                                          "{\"header\":{\"cluster_id\":\"77\",\"revision\":\"8\"}}"};
    struct bed bed;
    (void)state;
    bed_make(&bed, &kind_etcd, 0);
    for (int i = 0; i < 2; i++) {
        struct fake fake = {.status = "200 OK", .body = answers[i], .watch = ""};
        struct coordinator_ask get = {.act = COORDINATOR_GET, .id = group_0};
        fake_start(&fake);
        fake_ask(&bed, &fake, &get);
        assert_int_equal(get.outcome, i == 0 ? COORDINATOR_OK : COORDINATOR_REFUSED);
        BED_UNTIL(&bed, 0, status_of(&bed, 0).refused == (i == 1));
        assert_true(i == 0 || strstr(status_of(&bed, 0).text, "revision has gone back"));
        node_close(&bed, 0);
        fake_stop(&fake);
    }
    bed_free(&bed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_news_go_on_after_a_restart),
        cmocka_unit_test(test_a_stopped_etcd_does_not_stop_us),
        cmocka_unit_test(test_news_go_on_after_cuts_and_compaction),
        cmocka_unit_test(test_a_watch_that_fell_silent_is_replaced),
        cmocka_unit_test(test_news_do_not_wait_for_the_probe),
        cmocka_unit_test(test_a_late_swap_loses_if_others_were_faster),
        cmocka_unit_test(test_a_late_swap_lands_if_nobody_was_faster),
        cmocka_unit_test(test_a_lost_answer_is_unknown_and_a_lost_request_too),
        cmocka_unit_test(test_an_endpoint_that_is_down_is_passed_over),
        cmocka_unit_test(test_fail_over_to_another_endpoint_and_news_go_on),
        cmocka_unit_test(test_a_swap_goes_to_one_endpoint),
        cmocka_unit_test(test_users),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_without_a_directory_nothing_is_kept),
        cmocka_unit_test(test_wrong_options_are_refused),
        cmocka_unit_test(test_a_damaged_memory_is_refused),
        cmocka_unit_test(test_a_deleted_configuration_is_refused),
        cmocka_unit_test(test_others_keys_are_left_alone),
        cmocka_unit_test(test_hostile_answers_are_refused),
        cmocka_unit_test(test_an_endless_answer_is_cut_short),
        cmocka_unit_test(test_hostile_watches_are_given_up),
        cmocka_unit_test(test_another_store_is_refused),
        cmocka_unit_test(test_an_older_revision_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, shared_server_end);
}
