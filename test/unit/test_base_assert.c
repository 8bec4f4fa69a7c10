// SPDX-License-Identifier: Apache-2.0
//
// A failed assertion reports and then dies, whatever the handler does; a true one costs nothing and evaluates
// once.

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "cmocka_program.h"

static jmp_buf escape;
static char seen[256];

static void handler_escapes(const char *file, int line, const char *expression) {
    snprintf(seen, sizeof(seen), "%s|%d|%s", strrchr(file, '/') ? strrchr(file, '/') + 1 : file, line,
             expression);
    longjmp(escape, 1);
}

static void handler_returns(const char *file, int line, const char *expression) {
    (void)file;
    (void)line;
    (void)expression;
}

// Runs body in a child with stderr in a pipe; the output goes into seen.
static int status_of_child(void (*body)(void)) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0});
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        body();
        _exit(0);
    }
    close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    assert_non_null(output);
    size_t size = fread(seen, 1, sizeof(seen) - 1, output);
    seen[size] = 0;
    fclose(output);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void body_fails(void) {
    volatile int number = 1;
    ASSERT(number == 2);
}

static void body_fails_with_handler_that_returns(void) {
    shelf_assert_handler_set(handler_returns);
    body_fails();
}

static void body_holds(void) {
    volatile int number = 1;
    ASSERT(number == 1);
}

static void test_assert_true_goes_on(void **state) {
    (void)state;
    int count = 0;
    ASSERT(++count == 1);
    assert_int_equal(count, 1);
    assert_int_equal(status_of_child(body_holds), 0);
}

static void test_assert_false_reports_and_aborts(void **state) {
    (void)state;
    int status = status_of_child(body_fails);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_non_null(strstr(seen, "test_base_assert.c:"));
    assert_non_null(strstr(seen, "assertion failed: number == 2\n"));
}

static void test_assert_aborts_when_handler_returns(void **state) {
    (void)state;
    int status = status_of_child(body_fails_with_handler_that_returns);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_string_equal(seen, "");
}

static void test_assert_handler_may_escape(void **state) {
    (void)state;
    shelf_assert_handler_set(handler_escapes);
    volatile int line = 0;
    if (setjmp(escape) == 0) {
        line = __LINE__ + 1;
        ASSERT(seen[0] == 'x');
        fail();
    }
    shelf_assert_handler_set(NULL);
    char expected[256];
    snprintf(expected, sizeof(expected), "test_base_assert.c|%d|seen[0] == 'x'", line);
    assert_string_equal(seen, expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_assert_true_goes_on),
        cmocka_unit_test(test_assert_false_reports_and_aborts),
        cmocka_unit_test(test_assert_aborts_when_handler_returns),
        cmocka_unit_test(test_assert_handler_may_escape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
