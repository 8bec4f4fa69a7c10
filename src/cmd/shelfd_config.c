// SPDX-License-Identifier: Apache-2.0
/*
 * shelfd_config.c: see shelfd_config.h. In this order: defaults, file, environment, flags; what each value means is checked as
 * it is set, so that a message can name its origin; what they mean together, at the end.
 */
#include "cmd/shelfd_config.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "cmd/shelfd_log.h"
#include "cmd/words.h"

#define SECTION          "shelfd"
#define VARIABLE_PREFIX  "SHELF_"
#define SUGGEST_MISTAKES 4u

const struct setting settings[SETTING_COUNT] = {
#define X(id, name, kind, least, most, preset, argument, help) \
    [SETTING_##id] = {name, SETTING_KIND_##kind, least, most, preset, argument, help},
    SETTING_LIST(X)
#undef X
};

/* Always false, for `return refuse(...)`. */
__attribute__((format(printf, 2, 3))) static bool refuse(struct config *config, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(config->why, sizeof(config->why), format, arguments);
    va_end(arguments);
    return false;
}

/* ---- Values -------------------------------------------------------------------------------------------------------- */

static const char *const words_bool[] = {"no", "yes", NULL};
static const char *const words_backend[] = {
    [SHELF_BACKEND_AUTO] = "auto", [SHELF_BACKEND_URING] = "uring", [SHELF_BACKEND_PLAIN] = "plain", NULL};

static bool word_parse(const char *text, const char *const *words, uint64_t *ret_number) {
    for (uint64_t i = 0; words[i]; i++) {
        if (strcmp(text, words[i]) == 0) {
            *ret_number = i;
            return true;
        }
    }
    return false;
}

static bool count_parse(const char *text, uint64_t *ret_number) {
    return strspn(text, "0123456789") == strlen(text) && size_parse(text, ret_number);
}

static bool value_parse(const struct setting *setting, const char *text, uint64_t *ret_number) {
    switch (setting->kind) {
    case SETTING_KIND_PATH:
        return true;
    case SETTING_KIND_BOOL:
        return word_parse(text, words_bool, ret_number);
    case SETTING_KIND_COUNT:
        return count_parse(text, ret_number);
    case SETTING_KIND_SIZE:
        return size_parse(text, ret_number);
    case SETTING_KIND_TIME:
        return time_parse(text, ret_number);
    case SETTING_KIND_BACKEND:
        return word_parse(text, words_backend, ret_number);
    case SETTING_KIND_LOG_FORMAT:
        return word_parse(text, log_format_words, ret_number);
    case SETTING_KIND_LOG_LEVEL:
        return word_parse(text, log_level_words, ret_number);
    }
    return false;
}

static const char *kind_text(const struct setting *setting) {
    switch (setting->kind) {
    case SETTING_KIND_COUNT:
        return "a number";
    case SETTING_KIND_SIZE:
        return "bytes, or a number with K, M, G or T";
    case SETTING_KIND_TIME:
        return "a number with ms, s, m, h or d";
    default:
        return setting->argument;
    }
}

static bool value_set(struct config *config, enum setting_id id, const char *text, const char *origin) {
    const struct setting *setting = &settings[id];
    struct config_value *value = &config->values[id];
    uint64_t number = 0;
    if (strlen(text) >= sizeof(value->text)) {
        return refuse(config, "%s: the value of '%s' is too long", origin, setting->name);
    }
    if (!value_parse(setting, text, &number)) {
        return refuse(config, "%s: '%s' is no value of '%s'; write %s", origin, text, setting->name,
                      kind_text(setting));
    }
    if (setting->most != 0 && (number < setting->least || number > setting->most)) {
        bool is_time = setting->kind == SETTING_KIND_TIME;
        return refuse(config, "%s: %s = %s is out of range; from %llu to %llu%s is allowed", origin,
                      setting->name, text, (unsigned long long)setting->least,
                      (unsigned long long)setting->most, is_time ? " ms" : "");
    }
    (void)snprintf(value->text, sizeof(value->text), "%s", text);
    (void)snprintf(value->origin, sizeof(value->origin), "%s", origin);
    value->number = number;
    return true;
}

static void value_preset(struct config *config, enum setting_id id) {
    struct config_value *value = &config->values[id];
    (void)snprintf(value->origin, sizeof(value->origin), "default");
    if (settings[id].preset[0]) {
        (void)snprintf(value->text, sizeof(value->text), "%s", settings[id].preset);
        (void)value_parse(&settings[id], value->text, &value->number);
    }
}

static int setting_find(const char *name) {
    for (int id = 0; id < SETTING_COUNT; id++) {
        if (strcmp(settings[id].name, name) == 0) {
            return id;
        }
    }
    return -1;
}

static const char *setting_suggest(const char *name) {
    const char *found = NULL;
    size_t best = SUGGEST_MISTAKES;
    for (int id = 0; id < SETTING_COUNT; id++) {
        if (word_is_close(name, settings[id].name, &best)) {
            found = settings[id].name;
        }
    }
    return found;
}

/* ---- File ---------------------------------------------------------------------------------------------------------- */

struct file_reader {
    struct config *config;
    FILE *in;
    unsigned line;
    bool failed; /* config->why is set */
    char section[64];
    unsigned seen[SETTING_COUNT]; /* lines */
};

/* libinih's buffer has 200 bytes; what does not fit would be taken for a line of its own. */
static char *file_line(char *line, int size, void *context) {
    struct file_reader *reader = context;
    if (reader->failed || !fgets(line, size, reader->in)) {
        return NULL;
    }
    reader->line++;
    size_t length = strlen(line);
    if (length + 1 == (size_t)size && line[length - 1] != '\n') {
        reader->failed = !refuse(reader->config, "%s:%u: the line is longer than %d bytes",
                                 reader->config->file, reader->line, size - 2);
        return NULL;
    }
    return line;
}

static bool file_key_refuse(struct file_reader *reader, const char *name) {
    const char *suggested = setting_suggest(name);
    if (suggested) {
        return refuse(reader->config, "%s:%u: there is no setting '%s'; did you mean '%s'?",
                      reader->config->file, reader->line, name, suggested);
    }
    return refuse(reader->config, "%s:%u: there is no setting '%s'; `shelfd --help` lists them",
                  reader->config->file, reader->line, name);
}

static bool file_key_set(struct file_reader *reader, const char *section, const char *name,
                         const char *text) {
    struct config *config = reader->config;
    char origin[CONFIG_ORIGIN_MAX];
    if (strcmp(section, SECTION) != 0) {
        return refuse(config, "%s:%u: '%s' is in section [%s]; write it in section [" SECTION "]",
                      config->file, reader->line, name, section);
    }
    int id = setting_find(name);
    if (id < 0) {
        return file_key_refuse(reader, name);
    }
    if (reader->seen[id] != 0) {
        return refuse(config, "%s:%u: '%s' is set in line %u already", config->file, reader->line, name,
                      reader->seen[id]);
    }
    reader->seen[id] = reader->line;
    (void)snprintf(origin, sizeof(origin), "%s:%u", config->file, reader->line);
    return value_set(config, (enum setting_id)id, text, origin);
}

static int on_key(void *context, const char *section, const char *name, const char *text) {
    struct file_reader *reader = context;
    if (!reader->failed) {
        reader->failed = !file_key_set(reader, section, name, text);
    }
    return !reader->failed;
}

static bool file_read(struct config *config) {
    struct file_reader reader = {.config = config, .in = fopen(config->file, "re")};
    if (!reader.in) {
        return refuse(config, "configuration file %s: %s", config->file, strerror(errno));
    }
    int line = ini_parse_stream(file_line, &reader, on_key, &reader);
    bool broken = ferror(reader.in) != 0;
    (void)fclose(reader.in);
    if (reader.failed) {
        return false;
    }
    if (broken) {
        return refuse(config, "configuration file %s cannot be read", config->file);
    }
    return line == 0 || refuse(config,
                               "%s:%d: this is no line of an INI file; write `name = value`, [section] or a "
                               "comment after #",
                               config->file, line);
}

/* ---- Environment --------------------------------------------------------------------------------------------------- */

/* "SHELF_LOG_LEVEL=..." -> "log-level" and the value. False: the variable is not for us. */
static bool variable_split(const char *entry, char *ret_name, size_t size, const char **ret_value) {
    const char *equals = strchr(entry, '=');
    size_t prefix = strlen(VARIABLE_PREFIX), length = equals ? (size_t)(equals - entry) : 0;
    if (length <= prefix || length - prefix >= size || strncmp(entry, VARIABLE_PREFIX, prefix) != 0) {
        return false;
    }
    for (size_t i = prefix; i < length; i++) {
        ret_name[i - prefix] = entry[i] == '_' ? '-' : (char)tolower((unsigned char)entry[i]);
    }
    ret_name[length - prefix] = 0;
    *ret_value = equals + 1;
    return true;
}

/* Others may have variables of that prefix (a service called "shelf" in a cluster has), so these are no error. */
static void variable_remark(struct config *config, const char *entry, const char *name) {
    const char *suggested = setting_suggest(name);
    if (suggested) {
        (void)snprintf(config->unknown, sizeof(config->unknown),
                       "%.*s is no variable of shelfd; did you mean the one for '%s'?",
                       (int)strcspn(entry, "="), entry, suggested);
    }
}

static bool environment_read(struct config *config, char **environment) {
    char name[WORD_MAX + 1], origin[WORD_MAX * 2];
    const char *text;
    for (char **entry = environment; *entry; entry++) {
        if (!variable_split(*entry, name, sizeof(name), &text) || text[0] == 0 ||
            strcmp(name, "config") == 0) {
            continue;
        }
        int id = setting_find(name);
        (void)snprintf(origin, sizeof(origin), "%.*s", (int)strcspn(*entry, "="), *entry);
        if (id < 0) {
            variable_remark(config, *entry, name);
        } else if (!value_set(config, (enum setting_id)id, text, origin)) {
            return false;
        }
    }
    return true;
}

/* ---- Flags --------------------------------------------------------------------------------------------------------- */

enum { FLAG_CONFIG = 1000, FLAG_CHECK, FLAG_VERSION, FLAG_HELP };

struct flags {
    enum config_wish wish;
    const char *file;
    const char *given[SETTING_COUNT];
};

static void flags_build(struct option ret_options[SETTING_COUNT + 5]) {
    const struct option others[] = {{"config", 1, NULL, FLAG_CONFIG},
                                    {"check-config", 0, NULL, FLAG_CHECK},
                                    {"version", 0, NULL, FLAG_VERSION},
                                    {"help", 0, NULL, FLAG_HELP},
                                    {0}};
    for (int id = 0; id < SETTING_COUNT; id++) {
        ret_options[id] = (struct option){settings[id].name, 1, NULL, id};
    }
    memcpy(ret_options + SETTING_COUNT, others, sizeof(others));
}

static bool flag_refuse(struct config *config, const struct option *options, bool known, const char *word) {
    char typed[WORD_MAX + 1];
    const char *suggested = NULL;
    size_t best = SUGGEST_MISTAKES;
    if (known) {
        return refuse(config, "option '%s' needs a value", word);
    }
    (void)snprintf(typed, sizeof(typed), "%s", word + strspn(word, "-"));
    typed[strcspn(typed, "=")] = 0;
    for (const struct option *option = options; option->name; option++) {
        suggested = word_is_close(typed, option->name, &best) ? option->name : suggested;
    }
    return suggested ? refuse(config, "there is no option '%s'; did you mean --%s?", word, suggested)
                     : refuse(config, "there is no option '%s'; `shelfd --help` lists them", word);
}

static bool flags_read(struct config *config, int argc, char **argv, struct flags *ret_flags) {
    struct option options[SETTING_COUNT + 5];
    flags_build(options);
    opterr = 0;
    *ret_flags = (struct flags){.wish = CONFIG_RUN};
    for (;;) {
        int before = optind, flag = getopt_long(argc, argv, ":h", options, NULL);
        if (flag == -1) {
            break;
        }
        if (flag == '?' || flag == ':') {
            return flag_refuse(config, options, flag == ':', argv[optind > before ? optind - 1 : optind]);
        }
        if (flag == FLAG_HELP || flag == 'h') {
            ret_flags->wish = CONFIG_HELP;
            return true;
        } else if (flag == FLAG_VERSION) {
            ret_flags->wish = CONFIG_SHOW_VERSION;
            return true;
        } else if (flag == FLAG_CHECK) {
            ret_flags->wish = CONFIG_CHECK;
        } else if (flag == FLAG_CONFIG) {
            ret_flags->file = optarg;
        } else {
            ret_flags->given[flag] = optarg;
        }
    }
    return optind == argc || refuse(config, "'%s' is no option; to name the directory, say --data %s",
                                    argv[optind], argv[optind]);
}

static bool flags_apply(struct config *config, const struct flags *flags) {
    char origin[WORD_MAX * 2];
    for (int id = 0; id < SETTING_COUNT; id++) {
        (void)snprintf(origin, sizeof(origin), "--%s", settings[id].name);
        if (flags->given[id] && !value_set(config, (enum setting_id)id, flags->given[id], origin)) {
            return false;
        }
    }
    return true;
}

/* ---- The whole ----------------------------------------------------------------------------------------------------- */

static bool cluster_complete(struct config *config) {
    const struct config_value *etcd = &config->values[SETTING_ETCD];
    const struct config_value *address = &config->values[SETTING_NODE_ADDRESS];
    if (etcd->text[0] != 0 && address->text[0] == 0) {
        return refuse(
            config,
            "%s: a node of a cluster needs an address for the other nodes; say --node-address HOST:PORT",
            etcd->origin);
    }
    if (etcd->text[0] == 0 && address->text[0] != 0) {
        return refuse(config,
                      "%s: an address for other nodes makes no sense without a cluster; say --etcd URL",
                      address->origin);
    }
    return true;
}

static bool config_complete(struct config *config) {
    struct config_value *log = &config->values[SETTING_LOG_BYTES_MAX];
    struct config_value *checkpoint = &config->values[SETTING_CHECKPOINT_LOG_BYTES];
    if (config->values[SETTING_DATA].text[0] == 0) {
        return refuse(config,
                      "no directory is given; say --data DIR, or `data = DIR` in the configuration file");
    }
    if (!cluster_complete(config)) {
        return false;
    }
    if (checkpoint->text[0] == 0) {
        checkpoint->number = min_u64(log->number / 4, (uint64_t)256 << 20);
        (void)snprintf(checkpoint->text, sizeof(checkpoint->text), "%lluM",
                       (unsigned long long)(checkpoint->number >> 20));
    }
    return checkpoint->number <= log->number / 2 ||
           refuse(config, "%s: checkpoint-log-bytes = %s is more than half of log-bytes-max = %s (%s)",
                  checkpoint->origin, checkpoint->text, log->text, log->origin);
}

static const char *variable_find(char **environment, const char *name) {
    size_t length = strlen(name);
    for (char **entry = environment; *entry; entry++) {
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=' && (*entry)[length + 1] != 0) {
            return *entry + length + 1;
        }
    }
    return NULL;
}

static bool config_gather(struct config *config, const struct flags *flags, char **environment) {
    const char *file = flags->file ? flags->file : variable_find(environment, VARIABLE_PREFIX "CONFIG");
    if (file && strlen(file) >= sizeof(config->file)) {
        return refuse(config, "the name of the configuration file is too long");
    }
    (void)snprintf(config->file, sizeof(config->file), "%s", file ? file : "");
    return (!file || file_read(config)) && environment_read(config, environment) &&
           flags_apply(config, flags) && config_complete(config);
}

enum config_wish config_read(struct config *config, int argc, char **argv, char **environment) {
    struct flags flags;
    memset(config, 0, sizeof(*config));
    for (int id = 0; id < SETTING_COUNT; id++) {
        value_preset(config, (enum setting_id)id);
    }
    if (!flags_read(config, argc, argv, &flags)) {
        return CONFIG_WRONG;
    }
    if (flags.wish == CONFIG_HELP || flags.wish == CONFIG_SHOW_VERSION) {
        return flags.wish;
    }
    return config_gather(config, &flags, environment) ? flags.wish : CONFIG_WRONG;
}

void config_print(const struct config *config, FILE *out) {
    (void)fprintf(out, "[" SECTION "]\n");
    for (int id = 0; id < SETTING_COUNT; id++) {
        const struct config_value *value = &config->values[id];
        (void)fprintf(out, "%s%s = %s ; %s\n", value->text[0] ? "" : "# ", settings[id].name, value->text,
                      value->origin);
    }
}
