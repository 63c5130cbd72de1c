/* What a stranger sends to a port with TLS: any bytes, in pieces of any length; and the same at the
 * client's end. */
#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wire/tls.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tls_setup *setups[2];

/* A key and a certificate of its own, in a file that is gone again after it was read. */
static void make_setups(void)
{
    char path[] = "/tmp/sluice-fuzz.XXXXXX";
    int fd = mkstemp(path);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    if (!file || !key || !cert)
        abort();
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -100);
    X509_gmtime_adj(X509_getm_notAfter(cert), 864000);
    X509_set_pubkey(cert, key);
    X509_sign(cert, key, EVP_sha256());
    PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    PEM_write_X509(file, cert);
    fclose(file);
    EVP_PKEY_free(key);
    X509_free(cert);
    struct tls_files server = {.cert = path, .key = path, .ca = path}, client = {.ca = path};
    if (tls_setup_new(true, &server, &setups[0], NULL) < 0 ||
        tls_setup_new(false, &client, &setups[1], NULL) < 0)
        abort();
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tls *tls = NULL;
    struct error error;
    struct buf out;
    const char *why = NULL;
    char room[512];
    if (!setups[0])
        make_setups();
    if (size < 2)
        return 0;
    bool server = data[0] & 1;
    size_t step = (size_t)data[1] * 8 + 1;
    if (tls_new(setups[!server], server ? NULL : "localhost", &tls) < 0)
        abort();
    data += 2;
    size -= 2;
    int rc = 0;
    while (rc == 0 && size) {
        size_t n = size < step ? size : step;
        rc = tls_arrived(tls, data, n);
        if (rc == 0)
            rc = tls_receive(tls, room, sizeof(room), &why, &error);
        data += n;
        size -= n;
    }
    if (rc > 0 || (rc == -EPROTO && (!why || !error.message[0])))
        abort(); /* text without a handshake; a failure without a reason */
    buf_init(&out, 0);
    tls_take_output(tls, &out);
    buf_done(&out);
    tls_free(tls);
    return 0;
}
