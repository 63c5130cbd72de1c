/* The tokens of a volume as they stand in its file, what a client shows, paths and maps. */
#include <stdlib.h>
#include <string.h>

#include "meta/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is accepted comes out the same when it is written and read again. */
static void try_file(const char *text, size_t len)
{
    struct token_set set, again;
    struct error error;
    if (token_set_parse(text, len, &set, &error) < 0)
        return;
    char *one = token_set_print(&set);
    if (!one || token_set_parse(one, strlen(one), &again, &error) < 0)
        abort();
    char *two = token_set_print(&again);
    if (!two || strcmp(one, two) != 0)
        abort();
    free(one);
    free(two);
    token_set_done(&set);
    token_set_done(&again);
}

static void try_words(const char *text)
{
    struct token_ids ids = {0};
    char *path = NULL, *again = NULL;
    if (token_map_parse(text, ids.uids, &ids.uid_count) == 0) {
        for (unsigned i = 0; i < ids.uid_count; i++)
            if (token_uid_out(&ids, token_uid_in(&ids, ids.uids[i].client)) != ids.uids[i].client)
                abort();
    }
    if (token_path(text, &path) == 0 && path) {
        if (token_path(path, &again) < 0 || !again || strcmp(path, again) != 0 ||
            !token_path_below(path, strlen(path), again))
            abort();
        free(again);
    }
    free(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct token_set set = {0};
    const struct token *found = NULL;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    try_file(text, size);
    try_words(text);
    if (token_check(&set, text, size, 1, &found) != TOKEN_WRONG)
        abort();
    free(text);
    return 0;
}
