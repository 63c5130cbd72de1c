#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "test.h"
#include "token.h"

static void check_pick(const char *json, const char *audience, const char *wanted)
{
    cleanup(free_ptr) char *token = token_pick(json, audience);
    if (wanted)
        check_str(token, wanted);
    else
        check(!token);
}

TEST(token_pick, takes_the_one_that_is_meant)
{
    const char *two = "{\"sts.amazonaws.com\":{\"token\":\"a\"},\"vault\":{\"token\":\"b\"}}";
    check_pick("{\"any\":{\"token\":\"t\",\"expirationTimestamp\":\"2030-01-01T00:00:00Z\"}}", NULL,
               "t");
    check_pick(two, NULL, "a");
    check_pick(two, "vault", "b");
    check_pick(two, "other", NULL);
    check_pick("{\"x\":{\"token\":\"a\"},\"y\":{\"token\":\"b\"}}", NULL, NULL);
}

TEST(token_pick, takes_any_bytes)
{
    static const char *const bad[] = {"",
                                      "{",
                                      "[]",
                                      "null",
                                      "\"x\"",
                                      "{}",
                                      "{\"a\":1}",
                                      "{\"a\":{}}",
                                      "{\"a\":{\"token\":\"\"}}",
                                      "{\"a\":{\"token\":7}}",
                                      "{\"a\":{\"token\":\"x\\u0000y\"}}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        check_pick(bad[i], NULL, NULL);
    cleanup(free_ptr) char *large = calloc(1, TOKEN_MAX + 100);
    strcpy(large, "{\"a\":{\"token\":\"");
    memset(large + strlen(large), 'x', TOKEN_MAX + 1);
    strcat(large, "\"}}");
    check_pick(large, NULL, NULL);
}

static int store(const char *dir, const char *account, const char *token, bool in_use)
{
    char json[200];
    struct csi_call call;
    struct source source = {0};
    Csi__V1__NodePublishVolumeRequest request = CSI__V1__NODE_PUBLISH_VOLUME_REQUEST__INIT;
    Csi__V1__Pair pairs[2], *list[] = {&pairs[0], &pairs[1]};
    csi__v1__pair__init(&pairs[0]);
    csi__v1__pair__init(&pairs[1]);
    snprintf(json, sizeof(json), "{\"a\":{\"token\":\"%s\"}}", token);
    pairs[0].key = (char *)"csi.storage.k8s.io/serviceAccount.tokens";
    pairs[0].value = json;
    pairs[1].key = (char *)"csi.storage.k8s.io/serviceAccount.name";
    pairs[1].value = (char *)account;
    request.n_volume_context = 2;
    request.volume_context = list;
    csi_call_init(&call, 0);
    int code = token_store(&call, &request, &source, dir, in_use);
    check(!strstr(call.message, token));
    csi_call_done(&call);
    return code;
}

static void check_token(const char *dir, const char *wanted)
{
    char path[4200], text[100] = "";
    struct stat st;
    snprintf(path, sizeof(path), "%s/token", dir);
    FILE *file = fopen(path, "r");
    if (!wanted) {
        check(!file);
        return;
    }
    check(file != NULL);
    check(fread(text, 1, sizeof(text) - 1, file) > 0);
    fclose(file);
    check_str(text, wanted);
    check_int(stat(path, &st), 0);
    check_int(st.st_mode & 0777, 0600);
}

TEST(token_store, keeps_the_newest_of_one_account)
{
    char dir[4096];
    test_dir_make(dir);
    check_int(store(dir, "one", "first-token", false), CSI_OK);
    check_int(store(dir, "one", "second-token", true), CSI_OK);
    check_token(dir, "second-token");
    check_int(store(dir, "two", "other-token", true), CSI_FAILED_PRECONDITION);
    check_token(dir, "second-token");
    check_int(store(dir, "two", "other-token", false), CSI_OK);
    check_token(dir, "other-token");
    token_forget(dir);
    check_token(dir, NULL);
    test_dir_remove(dir);
}
