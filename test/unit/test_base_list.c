// SPDX-License-Identifier: Apache-2.0
//
// The intrusive list against an array that is treated the same way.

#include "base/list.h"

#include <string.h>

#include "base/random.h"
#include "cmocka_program.h"

struct item {
    uint64_t number;
    struct list link;
};

static void same_check(struct list *head, struct item *const *expected, size_t count) {
    size_t seen = 0;
    LIST_FOREACH(link, head) {
        assert_true(seen < count);
        assert_ptr_equal(LIST_ENTRY(link, struct item, link), expected[seen]);
        assert_ptr_equal(link->next->previous, link);
        assert_ptr_equal(link->previous->next, link);
        seen++;
    }
    assert_int_equal(seen, count);
    assert_int_equal(list_is_empty(head), count == 0);
    assert_ptr_equal(list_first(head), count ? &expected[0]->link : NULL);
    assert_ptr_equal(list_last(head), count ? &expected[count - 1]->link : NULL);
}

static void test_list_behaves_like_an_array(void **state) {
    (void)state;
    enum { COUNT = 16 };
    struct item items[COUNT];
    struct item *expected[COUNT] = {NULL};
    size_t count = 0;
    struct list head;
    struct random random;
    random_seed(&random, 3);
    list_init(&head);
    for (size_t i = 0; i < COUNT; i++) {
        list_init(&items[i].link);
    }
    for (int step = 0; step < 5000; step++) {
        struct item *item = &items[random_below(&random, COUNT)];
        size_t at = 0;
        while (at < count && expected[at] != item) {
            at++;
        }
        if (at < count) {
            list_unlink(&item->link);
            memmove(expected + at, expected + at + 1, (count - at - 1) * sizeof(expected[0]));
            count--;
        } else if (random_chance(&random, 1, 2)) {
            list_push_back(&head, &item->link);
            expected[count++] = item;
        } else {
            list_push_front(&head, &item->link);
            memmove(expected + 1, expected, count * sizeof(expected[0]));
            expected[0] = item;
            count++;
        }
        same_check(&head, expected, count);
    }
}

static void test_list_pop_front_in_order(void **state) {
    (void)state;
    struct list head;
    struct item items[3];
    list_init(&head);
    assert_null(list_pop_front(&head));
    for (uint64_t i = 0; i < 3; i++) {
        items[i].number = i;
        list_push_back(&head, &items[i].link);
    }
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(LIST_ENTRY(list_pop_front(&head), struct item, link)->number, i);
    }
    assert_true(list_is_empty(&head));
}

static void test_list_foreach_allows_unlinking(void **state) {
    (void)state;
    struct list head;
    struct item items[4];
    list_init(&head);
    for (uint64_t i = 0; i < 4; i++) {
        items[i].number = i;
        list_push_back(&head, &items[i].link);
    }
    LIST_FOREACH(link, &head) {
        if (LIST_ENTRY(link, struct item, link)->number % 2 == 0) {
            list_unlink(link);
            list_unlink(link); // I2: a second time does no harm
        }
    }
    same_check(&head, (struct item *[]){&items[1], &items[3]}, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list_behaves_like_an_array),
        cmocka_unit_test(test_list_pop_front_in_order),
        cmocka_unit_test(test_list_foreach_allows_unlinking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
