#include "source.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "test.h"

static struct csi_call call;

/* "key=value" texts as pairs. */
static int parse(const char *const *texts, bool allow_file, struct source *out)
{
    Csi__V1__Pair pairs[16], *list[16];
    char copies[16][200];
    size_t count = 0;
    for (; texts[count]; count++) {
        snprintf(copies[count], sizeof(copies[count]), "%s", texts[count]);
        char *equal = strchr(copies[count], '=');
        *equal = 0;
        csi__v1__pair__init(&pairs[count]);
        pairs[count].key = copies[count];
        pairs[count].value = equal + 1;
        list[count] = &pairs[count];
    }
    csi_call_init(&call, 0);
    return source_from_pairs(&call, count, list, allow_file, out);
}

#define PARSE(out, ...) parse((const char *const[]){__VA_ARGS__, NULL}, false, out)

TEST(source_from_pairs, makes_the_url)
{
    struct source s;
    check_int(PARSE(&s, "bucket=b", "prefix=a/b/", "endpoint=http://h:1", "memory=256M",
                    "csi.storage.k8s.io/pod.name=p"),
              CSI_OK);
    check_int(s.kind, SOURCE_S3);
    check_str(s.url, "s3://b/a/b");
    check_str(s.endpoint, "http://h:1");
    check_uint(s.option_count, 1);
    check_str(s.options[0], "--memory=256M");
    source_done(&s);
    check_int(PARSE(&s, "server=meta:7000", "volume=v", "readOnly=true", "anonymous=true"), CSI_OK);
    check_int(s.kind, SOURCE_SERVICE);
    check_str(s.url, "sluice://meta:7000/v");
    check(s.read_only && s.anonymous);
    check_str(s.options[0], "--anonymous");
    source_done(&s);
}

TEST(source_from_pairs, refuses_what_it_does_not_know)
{
    struct source s;
    check_int(PARSE(&s, "prefix=a"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "bucket=b", "url=s3://b"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "bucket=b/c"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "bucket=b", "prefix=a/../b"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "bucket=b", "meta-dir=/x"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "bucket=b", "writeback=maybe"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "bucket=b", "directory=/etc"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "server=h:1"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "url=file:///srv"), CSI_PERMISSION_DENIED);
    const char *const file[] = {"url=file:///srv/a/", NULL};
    check_int(parse(file, true, &s), CSI_OK);
    check_str(s.url, "file:///srv/a");
    source_done(&s);
}

TEST(source_id, is_read_back)
{
    struct source s, again;
    check_int(PARSE(&s, "bucket=b", "prefix=p", "endpoint=http://h:1", "region=r"), CSI_OK);
    check_int(source_descend(&call, &s, "pvc-1"), CSI_OK);
    char *id = source_id(&s);
    check_str(id, "s3://b/p/pvc-1;endpoint=http://h:1;region=r");
    check_int(source_from_id(&call, id, false, &again), CSI_OK);
    check_str(again.url, s.url);
    check_str(again.endpoint, s.endpoint);
    check_str(again.region, s.region);
    free(id);
    source_done(&again);
    check_int(source_from_id(&call, "s3://b/p;x=y", false, &again), CSI_INVALID_ARGUMENT);
    check_int(source_from_id(&call, "s3://b/../p", false, &again), CSI_INVALID_ARGUMENT);
    check_int(source_from_id(&call, "", false, &again), CSI_INVALID_ARGUMENT);
    for (int i = 0; i < 4; i++)
        check_int(source_descend(&call, &s, "0123456789012345678901234567890123456789"), CSI_OK);
    check(source_id(&s) == NULL); /* longer than an id may be */
    source_done(&s);
}

TEST(source_descend, gives_each_name_a_directory_of_its_own)
{
    static const char *const names[] = {"a/b", "a-b", "a b", ".a", "-a", "../x"};
    char *urls[6];
    for (size_t i = 0; i < 6; i++) {
        struct source s;
        check_int(PARSE(&s, "bucket=b"), CSI_OK);
        check_int(source_descend(&call, &s, names[i]), CSI_OK);
        check(strchr(s.url + strlen("s3://b/"), '/') == NULL);
        check(s.url[strlen("s3://b/")] != '.');
        urls[i] = strdup(s.url);
        source_done(&s);
        for (size_t k = 0; k < i; k++)
            check(strcmp(urls[i], urls[k]) != 0);
    }
    for (size_t i = 0; i < 6; i++)
        free(urls[i]);
}

TEST(check_path, takes_plain_absolute_paths_only)
{
    static const char *const bad[] = {"", "/", "a", "//a", "/a//b", "/a/", "/.", "/a/..", "/../a"};
    csi_call_init(&call, 0);
    check_int(check_path(&call, "p", "/a/b.c/..d"), CSI_OK);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        check_int(check_path(&call, "p", bad[i]), CSI_INVALID_ARGUMENT);
}

TEST(check_capacity, keeps_to_the_limit)
{
    Csi__V1__CapacityRange range = CSI__V1__CAPACITY_RANGE__INIT;
    int64_t size = 0;
    csi_call_init(&call, 0);
    check_int(check_capacity(&call, NULL, 10, &size), CSI_OK);
    check_int(size, 10);
    range.limit_bytes = 5;
    check_int(check_capacity(&call, &range, 10, &size), CSI_OK);
    check_int(size, 5);
    range.required_bytes = 6;
    check_int(check_capacity(&call, &range, 10, &size), CSI_OUT_OF_RANGE);
    range.required_bytes = -1;
    check_int(check_capacity(&call, &range, 10, &size), CSI_OUT_OF_RANGE);
}

TEST(source_is_made, of_a_service_only_with_a_directory)
{
    struct source s;
    check_int(PARSE(&s, "server=meta:7000", "volume=v", "prefix=a/b", "tls=true"), CSI_OK);
    check_str(s.url, "sluices://meta:7000/v/a/b");
    check(source_is_made(&s) && !s.directory);
    source_done(&s);
    check_int(source_from_id(&call, "sluice://meta:7000/v/a", false, &s), CSI_OK);
    check_str(s.url, "sluice://meta:7000/v/a");
    check(source_is_made(&s));
    source_done(&s);
    check_int(PARSE(&s, "server=meta:7000", "volume=v"), CSI_OK);
    check(!source_is_made(&s));
    source_done(&s);
    check_int(PARSE(&s, "bucket=b"), CSI_OK);
    check(source_is_made(&s));
    source_done(&s);
    check_int(PARSE(&s, "server=meta:7000", "volume=v", "prefix=../b"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "server=meta:7000", "volume=v", "tls=maybe"), CSI_INVALID_ARGUMENT);
}

TEST(source_add_flags, takes_a_context)
{
    struct source s;
    char quoted[] = "context=\"system_u:object_r:container_file_t:s0:c1,c2\"",
         plain[] = "context=a:b";
    char empty[] = "context=", odd[] = "context=a b", *flags[] = {quoted, plain, empty, odd};
    check_int(PARSE(&s, "bucket=b"), CSI_OK);
    check_int(source_add_flags(&call, &s, 1, flags), CSI_OK);
    check_str(s.selinux_context, "system_u:object_r:container_file_t:s0:c1,c2");
    check_int(source_add_flags(&call, &s, 1, flags + 1), CSI_OK);
    check_str(s.selinux_context, "a:b");
    for (size_t i = 2; i < 4; i++)
        check_int(source_add_flags(&call, &s, 1, flags + i), CSI_INVALID_ARGUMENT);
    source_done(&s);
}

TEST(source_from_pairs, wants_identity_and_role_together)
{
    struct source s;
    check_int(PARSE(&s, "bucket=b", "identity=pod", "roleArn=arn:x", "tokenAudience=a"), CSI_OK);
    check(s.pod_identity);
    check_str(s.role, "arn:x");
    source_done(&s);
    check_int(PARSE(&s, "bucket=b", "identity=pod"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "bucket=b", "roleArn=arn:x"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "bucket=b", "identity=pod", "roleArn=a b"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "bucket=b", "identity=node"), CSI_INVALID_ARGUMENT);
}

TEST(source_from_pairs, takes_durability_and_offline)
{
    struct source s;
    check_int(PARSE(&s, "bucket=b", "offline=1h", "durability=local",
                    "durability-for=_temporary*=scratch", "backup-interval=1h", "no-cache=true"),
              CSI_OK);
    check_int(s.option_count, 5);
    check_str(s.options[0], "--offline=1h");
    check_str(s.options[2], "--durability-for=_temporary*=scratch");
    check_str(s.options[4], "--no-cache");
    source_done(&s);
    check_int(PARSE(&s, "server=h:1", "volume=v", "durability=store", "offline=1h"), CSI_OK);
    char flag[] = "durability=local", *flags[] = {flag};
    check_int(source_add_flags(&call, &s, 1, flags), CSI_INVALID_ARGUMENT);
    source_done(&s);
    check_int(PARSE(&s, "server=h:1", "volume=v", "durability-for=a=local"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "server=h:1", "volume=v", "writeback=true"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "server=h:1", "volume=v", "backup-interval=1h"), CSI_INVALID_ARGUMENT);
    check_int(PARSE(&s, "bucket=b", "backup-to=file:///etc"), CSI_INVALID_ARGUMENT);
}
