/*
 * What is submitted while nothing else is in flight goes out from the thread that submits it, which
 * saves the way over the loop thread. What comes in company goes out together, and what the socket
 * does not take at once, what is submitted until it does, and all of a connection with TLS, goes
 * out from the loop thread.
 */
#include <sys/socket.h>

#include "remote_impl.h"

void remote_sender_init(struct remote_sender *sender)
{
    pthread_mutex_init(&sender->lock, NULL);
    sender->fd = -1;
    buf_init(&sender->spare, 0);
    buf_init(&sender->rest, 0);
}

void remote_sender_done(struct remote_sender *sender)
{
    buf_done(&sender->spare);
    buf_done(&sender->rest);
    pthread_mutex_destroy(&sender->lock);
}

/* Takes what was submitted into the spare buffer. */
static void take_out(struct remote *remote)
{
    struct remote_sender *sender = &remote->sender;
    buf_reset(&sender->spare);
    pthread_mutex_lock(&remote->lock);
    if (remote->online) {
        struct buf out = remote->out;
        remote->out = sender->spare;
        sender->spare = out;
    }
    pthread_mutex_unlock(&remote->lock);
}

/* False: the loop thread has to go on. */
static bool send_here(struct remote *remote)
{
    struct remote_sender *sender = &remote->sender;
    take_out(remote);
    struct buf *out = &sender->spare;
    if (out->len == 0 && !buf_error(out))
        return true;
    /* Any failure is the connection's: the loop thread meets it, too. */
    ssize_t n =
        buf_error(out) ? 0 : send(sender->fd, out->data, out->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    size_t sent = n < 0 ? 0 : (size_t)n;
    if (sent == out->len && !buf_error(out))
        return true;
    sender->fd = -1;
    if (buf_error(out))
        sender->rest.failed = true;
    else
        buf_put(&sender->rest, out->data + sent, out->len - sent);
    return false;
}

void remote_send(struct remote *remote)
{
    struct remote_sender *sender = &remote->sender;
    pthread_mutex_lock(&sender->lock);
    bool sent = sender->fd >= 0 && send_here(remote);
    pthread_mutex_unlock(&sender->lock);
    if (sent)
        return;
    pthread_mutex_lock(&remote->lock);
    remote_post_flush_locked(remote);
    pthread_mutex_unlock(&remote->lock);
}

void remote_sender_take(struct remote *remote, struct buf *out)
{
    struct remote_sender *sender = &remote->sender;
    pthread_mutex_lock(&sender->lock);
    buf_put(out, sender->rest.data, sender->rest.len);
    out->failed |= sender->rest.failed;
    buf_reset(&sender->rest);
    sender->fd = -1;
}

void remote_sender_give(struct remote *remote, int fd)
{
    remote->sender.fd = fd;
    pthread_mutex_unlock(&remote->sender.lock);
}

void remote_sender_ready(struct remote *remote, int fd)
{
    struct remote_sender *sender = &remote->sender;
    pthread_mutex_lock(&sender->lock);
    sender->fd = sender->rest.len || sender->rest.failed ? -1 : fd;
    pthread_mutex_unlock(&sender->lock);
}

void remote_sender_stop(struct remote *remote)
{
    struct remote_sender *sender = &remote->sender;
    pthread_mutex_lock(&sender->lock);
    sender->fd = -1;
    buf_reset(&sender->rest);
    pthread_mutex_unlock(&sender->lock);
}
