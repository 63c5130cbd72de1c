#include "engine/names.h"
#include "test.h"

TEST(names_check, tells_paths_from_other_keys)
{
    static const struct {
        const char *name;
        enum names_problem problem;
    } cases[] = {
        {"a", NAMES_OK},        {"", NAMES_EMPTY}, {".", NAMES_DOTS},    {"..", NAMES_DOTS},
        {"...", NAMES_OK},      {".a", NAMES_OK},  {"a b\tc", NAMES_OK}, {"..a", NAMES_OK},
        {"\xc3\xa4", NAMES_OK}, {"%2F", NAMES_OK},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_int(names_check(cases[i].name, strlen(cases[i].name)), cases[i].problem);
    char name[257];
    memset(name, 'x', sizeof(name));
    check_int(names_check(name, 255), NAMES_OK);
    check_int(names_check(name, 256), NAMES_LONG);
}

TEST(names_hidden, counts_all_and_keeps_a_hundred)
{
    struct names_hidden *hidden;
    check_int(names_hidden_new(&hidden), 0);
    for (int i = 0; i < 250; i++) {
        char key[32];
        snprintf(key, sizeof(key), "a//%d", i);
        names_hidden_add(hidden, 7, key, NAMES_EMPTY);
    }
    names_hidden_add(hidden, 7, "a//5", NAMES_EMPTY);
    check_uint(names_hidden_count(hidden), 250);
    json_t *out = json_object();
    names_hidden_status(hidden, out);
    check_uint(json_array_size(json_object_get(out, "hidden")), NAMES_HIDDEN_KEPT);
    json_decref(out);
    names_hidden_free(hidden);
}

TEST(names_hidden, forgets_a_directory_that_is_listed_anew)
{
    struct names_hidden *hidden;
    check_int(names_hidden_new(&hidden), 0);
    names_hidden_add(hidden, 7, "a//", NAMES_EMPTY);
    names_hidden_add(hidden, 8, "b/..", NAMES_DOTS);
    names_hidden_reset(hidden, 7);
    check_uint(names_hidden_count(hidden), 1);
    json_t *out = json_object();
    names_hidden_status(hidden, out);
    json_t *first = json_array_get(json_object_get(out, "hidden"), 0);
    check_str(json_string_value(json_object_get(first, "key")), "b/..");
    json_decref(out);
    names_hidden_free(hidden);
}
