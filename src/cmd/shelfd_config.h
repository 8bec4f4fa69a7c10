// SPDX-License-Identifier: Apache-2.0
/*
 * shelfd_config.h: the settings of shelfd, and where each value came from.
 *
 * One table. A setting NAME is `NAME = value` in section [shelfd] of the configuration file, SHELF_NAME in the environment
 * (in capitals, with _ for -), and --NAME value on the command line; each of these overrides the ones before it.
 */
#ifndef CMD_SHELFD_CONFIG_H
#define CMD_SHELFD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "shelf.h"

/* X(id, name, kind, least, most, default, what its value is called, help) */
#define SETTING_LIST(X)                                                                                      \
    X(DATA, "data", PATH, 0, 0, "", "DIR", "directory of the shelf; DIR/sock is its socket")                 \
    X(CREATE, "create", BOOL, 0, 1, "yes", "yes|no", "make an empty shelf if there is none in DIR")          \
    X(SOCKET, "socket", PATH, 0, 0, "", "PATH", "a further socket to listen on")                             \
    X(CLIENTS_MAX, "clients-max", COUNT, 1, 65536, "1024", "N", "programs attached at one time")             \
    X(CLIENT_BYTES_MAX, "client-bytes-max", SIZE, (uint64_t)48 << 20, (uint64_t)64 << 30, "64M", "SIZE",     \
      "bytes of requests under way, of one program")                                                         \
    X(CLIENT_REQUESTS_MAX, "client-requests-max", COUNT, 1, 1024, "1024", "N",                               \
      "requests under way, of one program")                                                                  \
    X(BACKEND, "backend", BACKEND, 0, 0, "auto", "auto|uring|plain", "how the log is written")               \
    X(LOG_BYTES_MAX, "log-bytes-max", SIZE, (uint64_t)128 << 20, (uint64_t)128 << 30, "1G", "SIZE",          \
      "space for the log on disk")                                                                           \
    X(CHECKPOINT_LOG_BYTES, "checkpoint-log-bytes", SIZE, (uint64_t)1 << 20, (uint64_t)64 << 30, "", "SIZE", \
      "a checkpoint starts after that much log (a quarter of log-bytes-max, 256M at most)")                  \
    X(CHECKPOINT_INTERVAL, "checkpoint-interval", TIME, 1000, 2592000000, "5m", "TIME",                      \
      "... or after that time with changes")                                                                 \
    X(SESSION_IDLE, "session-idle", TIME, 1000, 31536000000, "1h", "TIME",                                   \
      "unnamed sessions expire after that time without use")                                                 \
    X(SESSION_NAMED_IDLE, "session-named-idle", TIME, 1000, 315360000000, "30d", "TIME",                     \
      "... and named ones")                                                                                  \
    X(ETCD, "etcd", PATH, 0, 0, "", "URL[,URL]",                                                             \
      "be a node of a cluster, whose coordinator is this etcd (or file:DIR, for several nodes of one "       \
      "machine)")                                                                                            \
    X(NODE_ADDRESS, "node-address", PATH, 0, 0, "", "HOST:PORT",                                             \
      "where this node listens for the others, and where they are told to find it")                          \
    X(CLUSTER, "cluster", PATH, 0, 0, "shelf", "NAME", "the cluster's name with its coordinator")            \
    X(NODE_ID, "node-id", COUNT, 1, UINT32_MAX, "", "N",                                                     \
      "this node's number in the cluster, from 1 (chosen at the first start, kept in DIR)")                  \
    X(COPIES, "copies", COUNT, 1, 16, "3", "N", "so many nodes are kept in sync, if there are so many")      \
    X(MIN_COPIES, "min-copies", COUNT, 1, 16, "2", "N",                                                      \
      "no node is left out of the set if fewer would remain: then commits wait for it")                      \
    X(HEARTBEAT, "heartbeat", TIME, 2, 10000, "20ms", "TIME",                                                \
      "how often a primary lets the others hear of it")                                                      \
    X(SUSPECT, "suspect", TIME, 10, 60000, "150ms", "TIME",                                                  \
      "another takes over when nothing was heard of a primary for that time")                                \
    X(ETCD_USER, "etcd-user", PATH, 0, 0, "", "NAME", "as whom to ask etcd")                                 \
    X(ETCD_PASSWORD_FILE, "etcd-password-file", PATH, 0, 0, "", "FILE", "... and where the password is")     \
    X(ETCD_CA_FILE, "etcd-ca-file", PATH, 0, 0, "", "FILE",                                                  \
      "whom to believe that it is etcd, with https (the system's authorities)")                              \
    X(ETCD_CERTIFICATE_FILE, "etcd-certificate-file", PATH, 0, 0, "", "FILE",                                \
      "who this node is, with https")                                                                        \
    X(ETCD_KEY_FILE, "etcd-key-file", PATH, 0, 0, "", "FILE", "... and the key to it")                       \
    X(LOG_FORMAT, "log-format", LOG_FORMAT, 0, 0, "auto", "auto|text|journal|json",                          \
      "text: for people; journal: key=value; auto: text on a terminal, else journal")                        \
    X(LOG_LEVEL, "log-level", LOG_LEVEL, 0, 0, "info", "error|warning|info|debug",                           \
      "what is logged: this and what is more serious")

enum setting_id {
#define X(id, ...) SETTING_##id,
    SETTING_LIST(X)
#undef X
        SETTING_COUNT
};

enum setting_kind {
    SETTING_KIND_PATH,
    SETTING_KIND_BOOL,
    SETTING_KIND_COUNT,
    SETTING_KIND_SIZE,
    SETTING_KIND_TIME, /* in milliseconds */
    SETTING_KIND_BACKEND,
    SETTING_KIND_LOG_FORMAT,
    SETTING_KIND_LOG_LEVEL,
};

struct setting {
    const char *name;
    enum setting_kind kind;
    uint64_t least, most;
    const char *preset;
    const char *argument; /* what its value is called in the help */
    const char *help;
};
extern const struct setting settings[SETTING_COUNT];

#define CONFIG_PATH_MAX   4096u
#define CONFIG_ORIGIN_MAX (CONFIG_PATH_MAX + 16)
#define CONFIG_WHY_MAX    (2 * CONFIG_PATH_MAX)

struct config_value {
    char text[CONFIG_PATH_MAX];     /* as it was given; "" if it was not, and there is no preset */
    char origin[CONFIG_ORIGIN_MAX]; /* "FILE:LINE", "SHELF_NAME", "--name", "default" */
    uint64_t number;                /* what it means, if it is no path */
};

struct config {
    struct config_value values[SETTING_COUNT];
    char file[CONFIG_PATH_MAX]; /* "": none */
    char unknown[256];          /* a variable SHELF_... that looks misspelt, and what was meant; "": none */
    char why[CONFIG_WHY_MAX];   /* after a failure: what is wrong, where, and what to do */
};

enum config_wish { CONFIG_RUN, CONFIG_CHECK, CONFIG_HELP, CONFIG_SHOW_VERSION, CONFIG_WRONG };

/* Reads command line, file and environment. CONFIG_WRONG: config->why is set. */
enum config_wish config_read(struct config *config, int argc, char **argv, char **environment);
/* The effective values as a configuration file, with the origin of each behind it. */
void config_print(const struct config *config, FILE *out);

#endif
