/* The one place where S3's error codes and HTTP statuses become errno values. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3_impl.h"

static const struct {
    const char *code;
    int result;
    enum store_retry retry;
} codes[] = {
    {"NoSuchKey", -ENOENT, STORE_RETRY_NEVER},
    {"NoSuchBucket", -ENOENT, STORE_RETRY_NEVER},
    {"NoSuchUpload", -ENOENT, STORE_RETRY_NEVER},
    {"NoSuchVersion", -ENOENT, STORE_RETRY_NEVER},
    {"PreconditionFailed", -EEXIST, STORE_RETRY_NEVER},
    {"ConditionalRequestConflict", -EAGAIN, STORE_RETRY_AGAIN},
    {"OperationAborted", -EAGAIN, STORE_RETRY_AGAIN},
    {"AccessDenied", -EACCES, STORE_RETRY_NEVER},
    {"InvalidAccessKeyId", -EACCES, STORE_RETRY_NEVER},
    {"SignatureDoesNotMatch", -EACCES, STORE_RETRY_NEVER},
    {"InvalidToken", -EACCES, STORE_RETRY_NEVER},
    {"XAdminUserNotFound", -EACCES, STORE_RETRY_NEVER},
    {"InvalidObjectState", -EACCES, STORE_RETRY_NEVER},
    {"ExpiredToken", -EACCES, STORE_RETRY_NEVER},
    {"TokenRefreshRequired", -EACCES, STORE_RETRY_NEVER},
    {"RequestTimeTooSkewed", -EACCES, STORE_RETRY_NEVER},
    {"InvalidRange", -ERANGE, STORE_RETRY_NEVER},
    {"EntityTooLarge", -EFBIG, STORE_RETRY_NEVER},
    {"KeyTooLongError", -ENAMETOOLONG, STORE_RETRY_NEVER},
    {"KeyTooLong", -ENAMETOOLONG, STORE_RETRY_NEVER},
    {"QuotaExceeded", -ENOSPC, STORE_RETRY_NEVER},
    {"NotImplemented", -EOPNOTSUPP, STORE_RETRY_NEVER},
    {"MethodNotAllowed", -EOPNOTSUPP, STORE_RETRY_NEVER},
    {"ObjectParentIsFile", -ENOTDIR, STORE_RETRY_NEVER},
    {"ExistingObjectIsDirectory", -EISDIR, STORE_RETRY_NEVER},
    {"DirectoryObjectContainsData", -EISDIR, STORE_RETRY_NEVER},
    {"XMinioParentIsObject", -ENOTDIR, STORE_RETRY_NEVER},
    {"XMinioObjectExistsAsDirectory", -EISDIR, STORE_RETRY_NEVER},
    {"XMinioStorageFull", -ENOSPC, STORE_RETRY_NEVER},
    {"XMinioAdminBucketQuotaExceeded", -ENOSPC, STORE_RETRY_NEVER},
    {"SlowDown", -EIO, STORE_RETRY_SLOWLY},
    {"SlowDownRead", -EIO, STORE_RETRY_SLOWLY},
    {"SlowDownWrite", -EIO, STORE_RETRY_SLOWLY},
    {"ServiceUnavailable", -EIO, STORE_RETRY_SLOWLY},
    {"TooManyRequests", -EIO, STORE_RETRY_SLOWLY},
    {"Throttling", -EIO, STORE_RETRY_SLOWLY},
    {"ThrottlingException", -EIO, STORE_RETRY_SLOWLY},
    {"RequestLimitExceeded", -EIO, STORE_RETRY_SLOWLY},
    {"BandwidthLimitExceeded", -EIO, STORE_RETRY_SLOWLY},
    {"InternalError", -EIO, STORE_RETRY_AGAIN},
    {"RequestTimeout", -EIO, STORE_RETRY_AGAIN},
    {"BadDigest", -EIO, STORE_RETRY_AGAIN},
    {"IncompleteBody", -EIO, STORE_RETRY_AGAIN},
    {"XAmzContentSHA256Mismatch", -EIO, STORE_RETRY_AGAIN},
    {"XAmzContentChecksumMismatch", -EIO, STORE_RETRY_AGAIN},
};

static struct s3_verdict by_status(int status)
{
    switch (status) {
    case 401:
    case 403:
        return (struct s3_verdict){-EACCES, STORE_RETRY_NEVER};
    case 404:
        return (struct s3_verdict){-ENOENT, STORE_RETRY_NEVER};
    case 405:
    case 501:
        return (struct s3_verdict){-EOPNOTSUPP, STORE_RETRY_NEVER};
    case 408:
        return (struct s3_verdict){-EIO, STORE_RETRY_AGAIN};
    case 409:
        return (struct s3_verdict){-EAGAIN, STORE_RETRY_AGAIN};
    case 412:
        return (struct s3_verdict){-EEXIST, STORE_RETRY_NEVER};
    case 413:
        return (struct s3_verdict){-EFBIG, STORE_RETRY_NEVER};
    case 416:
        return (struct s3_verdict){-ERANGE, STORE_RETRY_NEVER};
    case 429:
    case 503:
        return (struct s3_verdict){-EIO, STORE_RETRY_SLOWLY};
    case 507:
        return (struct s3_verdict){-ENOSPC, STORE_RETRY_NEVER};
    default:
        if (status >= 300 && status < 500)
            return (struct s3_verdict){-EINVAL, STORE_RETRY_NEVER};
        return (struct s3_verdict){-EIO, STORE_RETRY_AGAIN};
    }
}

struct s3_verdict s3_error_verdict(const char *code, int http_status)
{
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        if (strcmp(codes[i].code, code) == 0)
            return (struct s3_verdict){codes[i].result, codes[i].retry};
    }
    /* Something else than a key was not found: files must not seem to be gone. HEAD has no code. */
    if (http_status == 404 && code[0])
        return (struct s3_verdict){-EINVAL, STORE_RETRY_NEVER};
    return by_status(http_status);
}

int s3_error_errno(const char *code)
{
    return s3_error_verdict(code, 500).result;
}
