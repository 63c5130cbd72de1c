#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "csi.pb-c.h"
#include "test.h"

static int decode_id(const char *id, struct wire_message *out, struct error *error)
{
    Csi__V1__NodeUnstageVolumeRequest request = CSI__V1__NODE_UNSTAGE_VOLUME_REQUEST__INIT;
    struct buf bytes;
    buf_init(&bytes, 0);
    request.volume_id = (char *)id;
    check_int(wire_encode(&request.base, &bytes), 0);
    int r = wire_decode(&csi__v1__node_unstage_volume_request__descriptor, bytes.data, bytes.len,
                        out, error);
    buf_done(&bytes);
    return r;
}

TEST(wire_decode, gives_back_what_was_encoded)
{
    struct wire_message m;
    check_int(decode_id("a volume \xc3\xa4", &m, NULL), 0);
    check_str(wire_string(m.message, "volume_id"), "a volume \xc3\xa4");
    check_str(wire_string(m.message, "staging_target_path"), "");
    check(wire_string(m.message, "nothing") == NULL);
    wire_message_done(&m);
}

TEST(wire_decode, refuses_text_that_is_no_text)
{
    static const char *const bad[] = {
        "a\nb", "\x7f", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "\x01"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct wire_message m;
        struct error error = {0};
        check_int(decode_id(bad[i], &m, &error), -EINVAL);
        check(strstr(error_text(&error), "volume_id") != NULL);
        wire_message_done(&m);
    }
}

TEST(wire_decode, allows_line_ends_in_the_values_of_maps_only)
{
    Csi__V1__DeleteVolumeRequest request = CSI__V1__DELETE_VOLUME_REQUEST__INIT;
    Csi__V1__Pair pair = CSI__V1__PAIR__INIT, *list[] = {&pair};
    request.secrets = list;
    request.n_secrets = 1;
    for (int turn = 0; turn < 2; turn++) {
        struct buf bytes;
        struct wire_message m;
        buf_init(&bytes, 0);
        pair.key = (char *)(turn ? "a\nb" : "ca");
        pair.value = (char *)"line\nline";
        check_int(wire_encode(&request.base, &bytes), 0);
        check_int(wire_decode(&csi__v1__delete_volume_request__descriptor, bytes.data, bytes.len,
                              &m, NULL),
                  turn ? -EINVAL : 0);
        wire_message_done(&m);
        buf_done(&bytes);
    }
}

TEST(wire_decode, refuses_other_bytes)
{
    struct wire_message m;
    check_int(wire_decode(&csi__v1__probe_request__descriptor, "\x0a\xff", 2, &m, NULL), -EBADMSG);
    wire_message_done(&m);
}

/* An empty element takes two bytes here and many there. */
TEST(wire_decode, bounds_the_memory_of_a_request)
{
    size_t len = WIRE_MESSAGE_MAX;
    unsigned char *bytes = malloc(len + 1);
    struct wire_message m;
    check(bytes != NULL);
    for (size_t i = 0; i < len; i += 2) { /* secrets = {} */
        bytes[i] = 2 << 3 | 2;
        bytes[i + 1] = 0;
    }
    check_int(wire_decode(&csi__v1__delete_volume_request__descriptor, bytes, len, &m, NULL),
              -EBADMSG);
    check_uint(m.left, WIRE_MEMORY_MAX); /* and nothing of it is kept */
    check_int(wire_decode(&csi__v1__delete_volume_request__descriptor, bytes, 2000, &m, NULL), 0);
    wire_message_done(&m);
    check_int(wire_decode(&csi__v1__delete_volume_request__descriptor, bytes, len + 1, &m, NULL),
              -E2BIG);
    free(bytes);
}
