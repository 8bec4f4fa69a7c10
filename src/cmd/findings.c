// SPDX-License-Identifier: Apache-2.0
/* findings.c: a list that grows; without memory for another one, findings are still counted. */
#include "cmd/findings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void finding_add(struct findings *findings, enum severity severity, const char *file, uint64_t offset,
                 uint64_t index, const char *todo, const char *format, ...) {
    *(severity == SEVERITY_DAMAGE ? &findings->damage : &findings->harmless) += 1;
    if (!findings->items) {
        findings->items = calloc(FINDINGS_MAX, sizeof(*findings->items));
    }
    if (!findings->items || findings->count == FINDINGS_MAX) {
        return;
    }
    struct finding *finding = &findings->items[findings->count++];
    finding->severity = severity;
    finding->offset = offset;
    finding->index = index;
    finding->todo = todo;
    (void)snprintf(finding->file, sizeof(finding->file), "%s", file);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(finding->what, sizeof(finding->what), format, arguments);
    va_end(arguments);
}

void findings_free(struct findings *findings) {
    free(findings->items);
    *findings = (struct findings){0};
}
