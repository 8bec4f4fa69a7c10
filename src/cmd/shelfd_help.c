// SPDX-License-Identifier: Apache-2.0
/* shelfd_help.c: `shelfd --help`, made from the table of settings. */
#include "cmd/shelfd_help.h"

#include "cmd/shelfd_config.h"

static const char *const examples[] = {
    "shelfd --data /var/lib/shelf",
    "shelfd --data ./shop --socket /tmp/shop.sock --log-level debug",
    "shelfd --config /etc/shelf/shelf.conf --check-config",
    "SHELF_DATA=./shop SHELF_CHECKPOINT_INTERVAL=1m shelfd",
};

void shelfd_help(FILE *out) {
    (void)fprintf(
        out,
        "shelfd %s: keeps a shelf, and serves it to the programs of this machine\n\n"
        "usage: shelfd --data DIR [OPTIONS]\n\n"
        "Opens the shelf in DIR and listens on DIR/sock; programs reach it by shelf_open(\"dir:DIR\") or\n"
        "shelf_open(\"unix:PATH\"), people by `shelf status DIR`. SIGTERM, SIGINT and SIGHUP write a "
        "checkpoint\n"
        "and end it; a second signal ends it at once (nothing that was acknowledged is lost).\n\nsettings\n",
        shelf_version());
    for (int id = 0; id < SETTING_COUNT; id++) {
        const struct setting *setting = &settings[id];
        (void)fprintf(out, "  --%s %s\n      %s%s%s%s\n", setting->name, setting->argument, setting->help,
                      setting->preset[0] ? " (" : "", setting->preset, setting->preset[0] ? ")" : "");
    }
    (void)fprintf(
        out,
        "\noptions\n"
        "  --config FILE    read settings from FILE first\n"
        "  --check-config   print the settings that would be used, and where each comes from; start nothing\n"
        "  --version\n"
        "  --help           this text\n\n"
        "A setting NAME is `NAME = value` in section [shelfd] of FILE, the variable SHELF_NAME (in "
        "capitals,\n"
        "with _ for -; SHELF_CONFIG names FILE), or --NAME value. The command line goes before the "
        "environment,\n"
        "and that before the file. SIZE is bytes, or a number with K, M, G or T; TIME a number with ms, s, "
        "m, h\n"
        "or d.\n\nexit codes\n"
        "    0  ended by a signal, after a checkpoint; or --check-config found nothing wrong\n"
        "  130  ended by a signal at once, without a checkpoint\n");
#define X(name, code, text)                                                                               \
    if ((code) == SHELF_INVALID || (code) == SHELF_DENIED || (code) == SHELF_CORRUPT ||                   \
        (code) == SHELF_BUSY || (code) == SHELF_FORMAT || (code) == SHELF_IO || (code) == SHELF_NO_SPACE) \
        (void)fprintf(out, "  %3d  %-9s %s\n", code, #name,                                               \
                      (code) == SHELF_INVALID ? "A setting or option is wrong; the message names it."     \
                                              : (text));
    SHELF_RESULT_LIST(X)
#undef X
    (void)fprintf(out, "       others: see shelf(1)\n\nexamples\n");
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        (void)fprintf(out, "  %s\n", examples[i]);
    }
}
