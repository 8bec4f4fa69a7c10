// SPDX-License-Identifier: Apache-2.0
//
// Base64: the vectors of RFC 4648, section 10, all lengths there and back, and what is refused.

#include "base/base64.h"

#include <string.h>

#include "base/random.h"
#include "cmocka_program.h"

static void test_base64_vectors(void **state) {
    (void)state;
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        char text[16], bytes[16];
        size_t size = 99;
        base64_encode(pairs[i][0], strlen(pairs[i][0]), text);
        assert_string_equal(text, pairs[i][1]);
        assert_true(base64_decode(text, strlen(text), bytes, sizeof(bytes), &size));
        assert_int_equal(size, strlen(pairs[i][0]));
        assert_memory_equal(bytes, pairs[i][0], size);
    }
}

static void test_base64_there_and_back(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 1);
    for (size_t size = 0; size < 300; size++) {
        uint8_t bytes[300], again[300];
        char text[BASE64_SIZE(300) + 1];
        size_t again_size = 0;
        random_fill(&random, bytes, size);
        base64_encode(bytes, size, text);
        assert_int_equal(strlen(text), BASE64_SIZE(size));
        assert_true(base64_decode(text, strlen(text), again, size, &again_size));
        assert_int_equal(again_size, size);
        assert_memory_equal(again, bytes, size);
        assert_false(size > 0 && base64_decode(text, strlen(text), again, size - 1, &again_size));
    }
}

static void test_base64_refuses_what_is_not_its_own_spelling(void **state) {
    (void)state;
    static const char *const wrong[] = {"Z",    "Zg",      "Zg=",  "Zh==",     "Zm9=", "Zg==Zg==", "====",
                                        "Z===", "Zm9vYg=", "Zm9-", "Zm 9vYmE", "=m9v", "Zm=v",     "Zm9\xff"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char bytes[16];
        size_t size;
        assert_false(base64_decode(wrong[i], strlen(wrong[i]), bytes, sizeof(bytes), &size));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base64_vectors),
        cmocka_unit_test(test_base64_there_and_back),
        cmocka_unit_test(test_base64_refuses_what_is_not_its_own_spelling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
