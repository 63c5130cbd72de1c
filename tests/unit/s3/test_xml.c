#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "s3/backend.h"
#include "test.h"
#include "xml.h"

#define HEAD "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define SPACE " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""

static struct xml_failure failure;
static struct error error;

static int list(const char *text, struct store_op *op)
{
    *op = (struct store_op){.kind = STORE_LIST};
    return xml_parse_list(text, strlen(text), op, &failure, &error);
}

TEST(xml_parse_list, reads_keys_and_prefixes_in_order)
{
    struct store_op op;
    check_int(list(HEAD "<ListBucketResult" SPACE
                        "><Name>b</Name><Prefix></Prefix><KeyCount>3</KeyCount>"
                        "<MaxKeys>1000</MaxKeys><Delimiter>%2F</Delimiter>"
                        "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
                        "<Contents><Key>a%20b%2B%C3%BC</Key><LastModified>2009-10-12T17:50:30.250Z"
                        "</LastModified><ETag>&quot;fba9dede5f27731c9771645a39863328&quot;</ETag>"
                        "<Size>434234</Size><StorageClass>STANDARD</StorageClass></Contents>"
                        "<Contents><Key>z+z</Key><Size>18446744073709551615</Size></Contents>"
                        "<CommonPrefixes><Prefix>b%2F</Prefix></CommonPrefixes></ListBucketResult>",
                   &op),
              0);
    check_uint(op.out_list.count, 3);
    const struct store_entry *e = op.out_list.entries;
    check_str(e[0].name, "a b+\xc3\xbc");
    check_str(e[0].etag, "fba9dede5f27731c9771645a39863328");
    check_uint(e[0].size, 434234);
    check_uint(e[0].mtime_ns, 1255369830 * NS_PER_S + 250 * NS_PER_MS);
    check(!e[0].is_prefix);
    check_str(e[1].name, "b/");
    check(e[1].is_prefix);
    check_str(e[2].name, "z z");
    check_uint(e[2].size, UINT64_MAX);
    check(op.out_list.next_token == NULL);
    store_op_reset(&op);
}

/* Servers send white space to keep the connection while they work. */
TEST(xml_parse_list, bears_white_space_before_the_document)
{
    struct store_op op;
    check_int(list("\r\n \t" HEAD "<ListBucketResult></ListBucketResult>", &op), 0);
    check_int(list(" \n", &op), -EBADMSG);
    store_op_reset(&op);
}

TEST(xml_copy_etag, is_without_quotes_and_marks)
{
    static const struct {
        const char *text, *etag;
    } cases[] = {{"\"ab-2\"", "ab-2"}, {"ab", "ab"}, {"W/\"ab\"", "ab"}, {"\"", "\""}, {"", ""}};
    char etag[STORE_ETAG_MAX];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        xml_copy_etag(etag, cases[i].text);
        check_str(etag, cases[i].etag);
    }
}

TEST(xml_parse_list, leaves_names_alone_that_are_not_encoded)
{
    struct store_op op;
    check_int(list("<ListBucketResult><Contents><Key>a+b%20&lt;&amp;</Key></Contents>"
                   "</ListBucketResult>",
                   &op),
              0);
    check_str(op.out_list.entries[0].name, "a+b%20<&");
    store_op_reset(&op);
}

TEST(xml_parse_list, gives_the_token_of_a_cut_listing)
{
    struct store_op op;
    check_int(list("<ListBucketResult><IsTruncated>true</IsTruncated>"
                   "<NextContinuationToken>1u/e=&amp;x</NextContinuationToken></ListBucketResult>",
                   &op),
              0);
    check_str(op.out_list.next_token, "1u/e=&x");
    store_op_reset(&op);
    check_int(list("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", &op),
              -EBADMSG);
    check(strstr(error.message, "token") != NULL);
    store_op_reset(&op);
}

TEST(xml_parse_list, tells_an_error_from_a_listing)
{
    struct store_op op;
    check_int(list(HEAD
                   "<Error><Code>SlowDown</Code><Message>Please reduce your request rate."
                   "</Message><RequestId>4442587FB7D0A2F9</RequestId><HostId>x</HostId></Error>",
                   &op),
              -EREMOTEIO);
    check_str(failure.code, "SlowDown");
    check_str(failure.message, "Please reduce your request rate.");
    check_str(failure.request_id, "4442587FB7D0A2F9");
    store_op_reset(&op);
}

static const struct {
    const char *text, *says;
} bad[] = {
    {"", "not XML"},
    {"<html><body>hello</body></html>", "web page"},
    {"\n<!DOCTYPE html><html></html>", "web page"},
    {"<ListBucketResult>", "not XML"},
    {"<ListBucketResult></ListBucketResult><x/>", "not XML"},
    {"<Other/>", "<Other>, not <ListBucketResult>"},
    {"<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>", "without a name"},
    {"<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY a \"b\">]><ListBucketResult>&a;"
     "</ListBucketResult>",
     "document type"},
    {"<ListBucketResult>&unknown;</ListBucketResult>", "not XML"},
    {"<ListBucketResult><a><a><a><a><a><a><a><a><a/></a></a></a></a></a></a></a></a>"
     "</ListBucketResult>",
     "too deep"},
};

TEST(xml_parse_list, refuses_what_is_no_listing)
{
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct store_op op;
        error_clear(&error);
        if (list(bad[i].text, &op) != -EBADMSG)
            test_fail("taken: %s", bad[i].text);
        if (!strstr(error.message, bad[i].says))
            test_fail("\"%s\" does not say \"%s\"", error.message, bad[i].says);
        store_op_reset(&op);
    }
}

TEST(xml_parse_list, bounds_texts_and_entries)
{
    size_t cap = 1u << 20, len = 0;
    char *text = malloc(cap);
    check(text != NULL);
    len += (size_t)snprintf(text, cap, "<ListBucketResult><Contents><Key>");
    memset(text + len, 'k', 5000);
    len += 5000;
    snprintf(text + len, cap - len, "</Key></Contents></ListBucketResult>");
    struct store_op op;
    check_int(list(text, &op), -EBADMSG);
    store_op_reset(&op);

    len = (size_t)snprintf(text, cap, "<ListBucketResult>");
    for (unsigned i = 0; i < 2001; i++)
        len += (size_t)snprintf(text + len, cap - len, "<Contents><Key>%u</Key></Contents>", i);
    snprintf(text + len, cap - len, "</ListBucketResult>");
    check_int(list(text, &op), -EBADMSG);
    check(strstr(error.message, "more entries") != NULL);
    store_op_reset(&op);
    free(text);
}

TEST(xml_parse_uploads, reads_ids_of_any_length_and_markers)
{
    static const char text[] = HEAD
        "<ListMultipartUploadsResult" SPACE "><Bucket>b</Bucket><EncodingType>url"
        "</EncodingType><NextKeyMarker>k%2Fz</NextKeyMarker><NextUploadIdMarker>id/2"
        "</NextUploadIdMarker><IsTruncated>true</IsTruncated>"
        "<Upload><Key>k%2F1</Key><UploadId>"
        "VXBsb2FkIElEIGZvciA2aWWpbmcncyBteS1tb3ZpZS5tMnRzIHVwbG9hZAVXBsb2FkIElEIGZvciA2aWWpbm"
        "cncyBteS1tb3ZpZS5tMnRzIHVwbG9hZA</UploadId><Initiator><ID>x</ID></Initiator>"
        "<Initiated>2010-11-10T20:48:33.000Z</Initiated></Upload></ListMultipartUploadsResult>";
    struct store_op op = {.kind = STORE_MPU_LIST};
    check_int(xml_parse_uploads(text, strlen(text), &op, &failure, &error), 0);
    check_uint(op.out_list.count, 1);
    check_str(op.out_list.entries[0].name, "k/1");
    check_uint(strlen(op.out_list.entries[0].upload_id), 116);
    check_uint(op.out_list.entries[0].mtime_ns, 1289422113 * NS_PER_S);
    check_str(op.out_list.next_token, "k%2Fz/id%2F2");
    store_op_reset(&op);
    op.token = "k%2Fz/id%2F2";
    check_int(xml_parse_uploads(text, strlen(text), &op, &failure, &error), -EBADMSG);
    check(strstr(error.message, "does not get on") != NULL);
    store_op_reset(&op);
}

static int code_to_errno(const char *code)
{
    return strcmp(code, "AccessDenied") == 0 ? -EACCES
           : strcmp(code, "NoSuchKey") == 0  ? -ENOENT
                                             : -EIO;
}

TEST(xml_parse_delete, lists_only_keys_that_failed)
{
    static const char text[] =
        HEAD "<DeleteResult" SPACE "><Deleted><Key>gone</Key></Deleted>"
             "<Error><Key>kept</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
             "<Error><Key>missing</Key><Code>NoSuchKey</Code></Error>"
             "<Error><Key>odd</Key><Code>InternalError</Code></Error></DeleteResult>";
    struct store_op op = {.kind = STORE_DELETE_MANY};
    check_int(xml_parse_delete(text, strlen(text), &op, code_to_errno, &failure, &error), 0);
    check_uint(op.out_list.count, 2);
    check_str(op.out_list.entries[0].name, "kept");
    check_uint(op.out_list.entries[0].size, EACCES);
    check_str(op.out_list.entries[1].name, "odd");
    check_uint(op.out_list.entries[1].size, EIO);
    store_op_reset(&op);
}

static int value(const char *text, const char *root, const char *element, char *out, size_t cap)
{
    return xml_parse_value(text, strlen(text), root, element, out, cap, &failure, &error);
}

TEST(xml_parse_value, reads_the_one_thing_that_is_wanted)
{
    char out[100];
    check_int(value(HEAD "<InitiateMultipartUploadResult" SPACE "><Bucket>b</Bucket><Key>k</Key>"
                         "<UploadId>VX-id</UploadId></InitiateMultipartUploadResult>",
                    "InitiateMultipartUploadResult", "UploadId", out, sizeof(out)),
              0);
    check_str(out, "VX-id");
    /* Spaces keep a connection alive while the server works. */
    check_int(value(HEAD "     \n\n  <CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>",
                    "CopyObjectResult", "ETag", out, sizeof(out)),
              0);
    check_str(out, "\"e\"");
    check_int(value("<s3:CopyObjectResult xmlns:s3=\"x\"><s3:ETag>e</s3:ETag>"
                    "</s3:CopyObjectResult>",
                    "CopyObjectResult", "ETag", out, sizeof(out)),
              0);
    check_str(out, "e");
}

TEST(xml_parse_value, sees_an_error_behind_a_good_status)
{
    char out[100];
    check_int(value(HEAD "<Error><Code>InternalError</Code><Message>We encountered an internal "
                         "error.</Message></Error>",
                    "CompleteMultipartUploadResult", "ETag", out, sizeof(out)),
              -EREMOTEIO);
    check_str(failure.code, "InternalError");
}

TEST(xml_parse_value, refuses_what_lacks_it_or_has_too_much)
{
    char out[8];
    check_int(value("<R><Other>x</Other></R>", "R", "ETag", out, sizeof(out)), -EBADMSG);
    check_int(value("<R><ETag>12345678</ETag></R>", "R", "ETag", out, sizeof(out)), -EBADMSG);
}

TEST(xml_parse_failure, keeps_the_code_of_a_talkative_error)
{
    char text[8000];
    size_t len = (size_t)snprintf(text, sizeof(text),
                                  "<Error><Code>AuthorizationHeaderMalformed</Code><Message>");
    memset(text + len, 'm', 6000);
    len += 6000;
    snprintf(text + len, sizeof(text) - len, "</Message><Region>eu-central-1</Region></Error>");
    check_int(xml_parse_failure(text, strlen(text), &failure, &error), 0);
    check_str(failure.code, "AuthorizationHeaderMalformed");
    check_str(failure.region, "eu-central-1");
    check_int(xml_parse_failure("<Other/>", 8, &failure, &error), -EBADMSG);
}

TEST(xml_parse_time, knows_fractions_and_nonsense)
{
    check_uint(xml_parse_time("1970-01-01T00:00:01Z"), NS_PER_S);
    check_uint(xml_parse_time("2009-10-12T17:50:30.000Z"), 1255369830 * NS_PER_S);
    check_uint(xml_parse_time("2009-10-12T17:50:30.123456789012Z"), 1255369830123456789);
    check_uint(xml_parse_time("2999-01-01T00:00:00Z"), UINT64_MAX);
    check_uint(xml_parse_time("yesterday"), 0);
    check_uint(xml_parse_time(""), 0);
    check_uint(xml_parse_time("1900-01-01T00:00:00Z"), 0);
}

TEST(xml_url_decode, keeps_what_is_no_code)
{
    char text[] = "a%2Fb%zz%4%%41+";
    xml_url_decode(text);
    check_str(text, "a/b%zz%4%A ");
}
