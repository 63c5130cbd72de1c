/*
 * The happy path: tls_new, ciphertext of the other side by tls_arrived, tls_receive drives the
 * handshake and yields text, tls_take_output has what goes back.
 *
 * Failure: OpenSSL's queue of errors is turned into one sentence in one place (explain). An alert
 * that tells the other side why stays in the output: take it also after an error.
 */
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

#define HANDSHAKE_MAX (64u << 10) /* bytes of the other side before it is done */
#define NAME_MAX_LEN 256
#define FILES 3

/* What tells one version of a file from the next. */
struct stamp {
    dev_t device;
    ino_t ino;
    off_t size;
    struct timespec mtime, ctime;
};

struct tls_setup {
    bool server;
    char *files[FILES]; /* cert, key, ca; NULL: none */
    pthread_mutex_t lock;
    SSL_CTX *context; /* under lock; connections hold references */
    struct stamp stamps[FILES];
};

struct tls {
    SSL *ssl;
    BIO *in, *out; /* owned by ssl */
    size_t handshake_bytes;
    char peer[NAME_MAX_LEN];
    bool server;
};

/* Set-up */

static int openssl_error(struct error *error, const char *what, const char *path)
{
    unsigned long code = ERR_peek_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    if (code && ERR_SYSTEM_ERROR(code))
        reason = strerror(ERR_GET_REASON(code));
    ERR_clear_error();
    return error_set(error, -EINVAL, "%s %s: %s", what, path, reason ? reason : "cannot be used");
}

/* A key without a password only: nobody is there to type one. */
static int no_password(char *room, int size, int writing, void *arg)
{
    return -1;
}

static int load_own(SSL_CTX *context, const struct tls_setup *setup, struct error *error)
{
    const char *cert = setup->files[0], *key = setup->files[1];
    if (!cert && !key)
        return 0;
    if (!cert || !key)
        return error_set(error, -EINVAL, "a certificate and its key are needed together");
    if (SSL_CTX_use_certificate_chain_file(context, cert) != 1)
        return openssl_error(error, "certificate", cert);
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        return openssl_error(error, "key", key);
    if (SSL_CTX_check_private_key(context) != 1)
        return openssl_error(error, "key", key);
    const X509 *own = SSL_CTX_get0_certificate(context);
    if (setup->server && X509_cmp_current_time(X509_get0_notAfter(own)) < 0)
        return error_set(error, -EINVAL, "certificate %s has expired", cert);
    return 0;
}

static int load_trusted(SSL_CTX *context, const struct tls_setup *setup, struct error *error)
{
    const char *ca = setup->files[2];
    int mode = setup->server ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_PEER;
    if (setup->server && !ca)
        return 0;
    if (ca && SSL_CTX_load_verify_locations(context, ca, NULL) != 1)
        return openssl_error(error, "CA file", ca);
    if (!ca && SSL_CTX_set_default_verify_paths(context) != 1)
        return openssl_error(error, "CA certificates", "of the system");
    SSL_CTX_set_verify(context, mode, NULL);
    return 0;
}

static int make_context(const struct tls_setup *setup, SSL_CTX **out, struct error *error)
{
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(setup->server ? TLS_server_method() : TLS_client_method());
    if (!context)
        return error_set(error, -ENOMEM, "out of memory");
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_default_passwd_cb(context, no_password);
    /* Connections are long: nothing is kept to take them up again. Records of idle ones cost no
     * memory. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_max_early_data(context, 0);
    int rc = load_own(context, setup, error);
    if (rc == 0)
        rc = load_trusted(context, setup, error);
    if (rc < 0)
        SSL_CTX_free(context);
    else
        *out = context;
    return rc;
}

static void read_stamps(const struct tls_setup *setup, struct stamp *out)
{
    for (int i = 0; i < FILES; i++) {
        struct stat st;
        memset(&out[i], 0, sizeof(out[i]));
        if (!setup->files[i] || stat(setup->files[i], &st) < 0)
            continue;
        out[i].device = st.st_dev;
        out[i].ino = st.st_ino;
        out[i].size = st.st_size;
        out[i].mtime = st.st_mtim;
        out[i].ctime = st.st_ctim;
    }
}

int tls_setup_new(bool server, const struct tls_files *files, struct tls_setup **out,
                  struct error *error)
{
    const char *const names[FILES] = {files->cert, files->key, files->ca};
    struct tls_setup *setup = calloc(1, sizeof(*setup));
    if (!setup)
        return error_set(error, -ENOMEM, "out of memory");
    int rc = 0;
    setup->server = server;
    pthread_mutex_init(&setup->lock, NULL);
    for (int i = 0; i < FILES && rc == 0; i++)
        if (names[i] && !(setup->files[i] = strdup(names[i])))
            rc = error_set(error, -ENOMEM, "out of memory");
    /* Before the files are read, so that one that is replaced meanwhile is read again. */
    read_stamps(setup, setup->stamps);
    if (rc == 0)
        rc = make_context(setup, &setup->context, error);
    if (rc < 0)
        tls_setup_free(setup);
    else
        *out = setup;
    return rc;
}

int tls_setup_reload(struct tls_setup *setup, struct error *error)
{
    struct stamp stamps[FILES];
    SSL_CTX *fresh = NULL;
    read_stamps(setup, stamps);
    pthread_mutex_lock(&setup->lock);
    bool same = memcmp(stamps, setup->stamps, sizeof(stamps)) == 0;
    memcpy(setup->stamps, stamps, sizeof(stamps));
    pthread_mutex_unlock(&setup->lock);
    if (same)
        return 0;
    int rc = make_context(setup, &fresh, error);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&setup->lock);
    SSL_CTX *old = setup->context;
    setup->context = fresh;
    pthread_mutex_unlock(&setup->lock);
    SSL_CTX_free(old);
    return 1;
}

void tls_setup_free(struct tls_setup *setup)
{
    if (!setup)
        return;
    SSL_CTX_free(setup->context);
    for (int i = 0; i < FILES; i++)
        free(setup->files[i]);
    pthread_mutex_destroy(&setup->lock);
    free(setup);
}

/* Connections */

static int expect_name(SSL *ssl, const char *name)
{
    struct in6_addr address;
    if (inet_pton(AF_INET, name, &address) == 1 || inet_pton(AF_INET6, name, &address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name);
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

int tls_new(struct tls_setup *setup, const char *name, struct tls **out)
{
    struct tls *tls = calloc(1, sizeof(*tls));
    BIO *in = BIO_new(BIO_s_mem()), *output = BIO_new(BIO_s_mem());
    pthread_mutex_lock(&setup->lock);
    SSL *ssl = tls ? SSL_new(setup->context) : NULL;
    pthread_mutex_unlock(&setup->lock);
    if (!ssl || !in || !output || (!setup->server && (!name || !expect_name(ssl, name)))) {
        SSL_free(ssl);
        BIO_free(in);
        BIO_free(output);
        free(tls);
        ERR_clear_error();
        return -ENOMEM;
    }
    /* An empty buffer means "not yet", not the end. */
    BIO_set_mem_eof_return(in, -1);
    BIO_set_mem_eof_return(output, -1);
    SSL_set_bio(ssl, in, output);
    *tls = (struct tls){.ssl = ssl, .in = in, .out = output, .server = setup->server};
    if (setup->server)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    *out = tls;
    return 0;
}

void tls_free(struct tls *tls)
{
    if (!tls)
        return;
    SSL_free(tls->ssl);
    free(tls);
}

bool tls_is_ready(const struct tls *tls)
{
    return SSL_is_init_finished(tls->ssl);
}

const char *tls_peer_name(const struct tls *tls)
{
    return tls->peer;
}

static void note_peer(struct tls *tls)
{
    X509 *peer = SSL_get1_peer_certificate(tls->ssl);
    if (!peer)
        return;
    int len = X509_NAME_get_text_by_NID(X509_get_subject_name(peer), NID_commonName, tls->peer,
                                        sizeof(tls->peer));
    if (len < 0)
        tls->peer[0] = '\0';
    X509_free(peer);
}

int tls_arrived(struct tls *tls, const void *data, size_t len)
{
    size_t written = 0;
    if (!tls_is_ready(tls)) {
        tls->handshake_bytes += len;
        if (tls->handshake_bytes > HANDSHAKE_MAX)
            return -EMSGSIZE;
    }
    if (len && (BIO_write_ex(tls->in, data, len, &written) != 1 || written != len))
        return -ENOMEM;
    return 0;
}

static int is_certificate_alert(int reason)
{
    switch (reason) {
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
    case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
        return 1;
    default:
        return 0;
    }
}

/* One sentence of what OpenSSL has to say, and one word to count it by. */
static int explain(struct tls *tls, const char **why, struct error *error)
{
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);
    long verified = SSL_get_verify_result(tls->ssl);
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    const char *other = tls->server ? "client" : "service";
    ERR_clear_error();
    *why = "other";
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        *why = "certificate";
        return error_set(error, -EPROTO, "the certificate of the %s is not accepted: %s", other,
                         X509_verify_cert_error_string(verified));
    }
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
        *why = "certificate";
        return error_set(error, -EPROTO, "the client has shown no certificate");
    }
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && is_certificate_alert(reason)) {
        *why = "certificate";
        return error_set(error, -EPROTO, "the %s does not accept the certificate of this side: %s",
                         other, text ? text : "?");
    }
    switch (ERR_GET_LIB(code) == ERR_LIB_SSL ? reason : 0) {
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
    case SSL_R_NO_PROTOCOLS_AVAILABLE:
        *why = "version";
        return error_set(error, -EPROTO, "the %s does not speak TLS 1.3", other);
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
        *why = "plain";
        return error_set(error, -EPROTO, "the %s does not speak TLS", other);
    default:
        return error_set(error, -EPROTO, "TLS: %s", text ? text : "protocol error");
    }
}

int tls_receive(struct tls *tls, void *room, size_t len, const char **why, struct error *error)
{
    bool was_ready = tls_is_ready(tls);
    size_t got = 0;
    ERR_clear_error();
    int rc = SSL_read_ex(tls->ssl, room, len, &got);
    if (!was_ready && tls_is_ready(tls))
        note_peer(tls);
    if (rc == 1)
        return (int)got;
    switch (SSL_get_error(tls->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return 0;
    case SSL_ERROR_ZERO_RETURN:
        return -ECONNRESET;
    default:
        return explain(tls, why, error);
    }
}

int tls_send(struct tls *tls, const void *data, size_t len)
{
    size_t written = 0;
    ERR_clear_error();
    if (len == 0)
        return 0;
    /* The output grows: all of it is taken at once. */
    if (SSL_write_ex(tls->ssl, data, len, &written) != 1 || written != len) {
        ERR_clear_error();
        return -EPROTO;
    }
    return 0;
}

void tls_take_output(struct tls *tls, struct buf *out)
{
    char *data = NULL;
    long len = BIO_get_mem_data(tls->out, &data);
    if (len > 0)
        buf_put(out, data, (size_t)len);
    (void)BIO_reset(tls->out);
}
