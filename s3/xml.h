/*
 * The XML replies of S3. Bounded in size, depth and text; a document type or an entity of its own
 * is refused. Namespaces and unknown elements are ignored. Pure functions.
 *
 * All return 0; -EBADMSG with a sentence (not XML, or not what was expected); -ENOMEM; or
 * -EREMOTEIO: the document is an <Error>, and *failure tells which.
 */
#ifndef SLUICE_S3_XML_H
#define SLUICE_S3_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "s3/store.h"

/* Longer replies are refused before they come here. */
#define XML_REPLY_MAX (32u << 20)

struct xml_failure {
    char code[48], message[256], request_id[72];
    char region[64]; /* of the bucket, where the server says so */
};

/* Root Error. Never -EREMOTEIO. */
int xml_parse_failure(const void *data, size_t len, struct xml_failure *out, struct error *error);
/* ListBucketResult → op->out_list, in order. */
int xml_parse_list(const void *data, size_t len, struct store_op *op, struct xml_failure *failure,
                   struct error *error);
/* ListMultipartUploadsResult → op->out_list; the token joins both markers (xml_split_marker). */
int xml_parse_uploads(const void *data, size_t len, struct store_op *op,
                      struct xml_failure *failure, struct error *error);
/* DeleteResult → op->out_list: the keys that failed; size = the errno that code_to_errno gives. */
int xml_parse_delete(const void *data, size_t len, struct store_op *op,
                     int (*code_to_errno)(const char *code), struct xml_failure *failure,
                     struct error *error);
/* The text of one element (InitiateMultipartUploadResult/UploadId,
 * CopyObjectResult/ETag, …). */
int xml_parse_value(const void *data, size_t len, const char *root, const char *element, char *out,
                    size_t cap, struct xml_failure *failure, struct error *error);
/* The texts of several elements, wherever they stand; what is not there stays as it was. */
struct xml_text {
    const char *element;
    char *out;
    size_t cap;
    bool found;
};
int xml_parse_texts(const void *data, size_t len, const char *root, struct xml_text *texts,
                    unsigned count, struct xml_failure *failure, struct error *error);
/* 2009-10-12T17:50:30.000Z → ns since 1970; 0 if it is no such time. */
uint64_t xml_parse_time(const char *text);
/* An ETag without its quotes, and without the mark that a proxy puts before one ("W/"). */
void xml_copy_etag(char out[STORE_ETAG_MAX], const char *text);
/* Decodes %XX and '+' in place. */
void xml_url_decode(char *text);

#endif
