#include "credentials.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/pool.h"
#include "credentials_fetch.h"
#include "profile.h"

/* New ones are fetched so long before the old ones end, or at half of a shorter life. */
#define REFRESH_BEFORE_S 300
#define RETRY_S 10

struct credentials {
    /* immutable */
    struct loop *loop;
    struct pool *pool; /* NULL: the set never changes */
    struct credential_source source;
    char source_name[96];
    /* owned by the loop thread once credentials_new returned */
    struct credential_set current;
    int64_t refresh_at_s; /* 0: never */
    bool rejected;
    char last_failure[256];
    /* handed to the pool's thread and back by the tasks */
    bool refreshing;
    struct pool_task fetch;
    struct loop_task fetched;
    struct credential_set next;
    int fetch_rc;
    struct error fetch_error;
};

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static int64_t now_s(void)
{
    return (int64_t)(clock_wall_ns() / NS_PER_S);
}

static const char *profile_name(const struct store_options *options)
{
    const char *name = options->profile;
    if (!name)
        name = environment("AWS_PROFILE");
    return name ? name : "default";
}

static void free_profiles(struct profiles *p)
{
    profiles_done(p);
}

int credentials_region(const struct store_options *options, char **out, struct error *error)
{
    cleanup(free_profiles) struct profiles profiles = {NULL};
    const char *region = options->region;
    if (!region)
        region = environment("AWS_REGION");
    if (!region)
        region = environment("AWS_DEFAULT_REGION");
    if (!region) {
        int rc = profiles_read(&profiles, error);
        if (rc)
            return rc;
        region = profile_get(profiles_find(&profiles, profile_name(options)), "region");
    }
    if (!region)
        region = "us-east-1";
    size_t len = strlen(region);
    if (len == 0 || len > 60 ||
        strspn(region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != len)
        return error_set(error, -EINVAL, "region \"%.80s\" is not a name of a region", region);
    *out = strdup(region);
    return *out ? 0 : error_set(error, -ENOMEM, "no memory");
}

/* ---- the chain: each step takes what it finds, 1 = found, 0 = not here, -errno ---- */

static int take_static(struct credentials *c, const char *name, const char *access_key,
                       const char *secret_key, const char *token, struct error *error)
{
    if (!secret_key || !*secret_key)
        return error_set(error, -EINVAL, "%s: an access key without its secret key", name);
    snprintf(c->source_name, sizeof(c->source_name), "%s", name);
    c->source.kind = CREDENTIALS_STATIC;
    c->current.access_key = strdup(access_key);
    c->current.secret_key = strdup(secret_key);
    c->current.session_token = token && *token ? strdup(token) : NULL;
    if (!c->current.access_key || !c->current.secret_key ||
        (token && *token && !c->current.session_token))
        return error_set(error, -ENOMEM, "no memory");
    return 1;
}

static int from_options(struct credentials *c, const struct store_options *o, struct error *error)
{
    if (!o->access_key)
        return o->secret_key ? error_set(error, -EINVAL, "a secret key without its access key") : 0;
    return take_static(c, "options", o->access_key, o->secret_key, o->session_token, error);
}

static int from_environment(struct credentials *c, struct error *error)
{
    const char *access_key = environment("AWS_ACCESS_KEY_ID");
    if (!access_key)
        return 0;
    return take_static(c, "environment", access_key, environment("AWS_SECRET_ACCESS_KEY"),
                       environment("AWS_SESSION_TOKEN"), error);
}

static int set_text(char **out, const char *text, struct error *error)
{
    *out = strdup(text);
    return *out ? 0 : error_set(error, -ENOMEM, "no memory");
}

static int take_web_identity(struct credentials *c, const char *name, const char *token_file,
                             const char *role_arn, const char *session_name, const char *region,
                             struct error *error)
{
    struct credential_source *s = &c->source;
    s->kind = CREDENTIALS_WEB_IDENTITY;
    snprintf(c->source_name, sizeof(c->source_name), "%s", name);
    const char *endpoint = environment("AWS_ENDPOINT_URL_STS");
    int rc = set_text(&s->token_file, token_file, error);
    if (rc == 0)
        rc = set_text(&s->role_arn, role_arn, error);
    if (rc == 0)
        rc = set_text(&s->session_name, session_name ? session_name : "sluice", error);
    if (rc)
        return rc;
    const char *suffix = strncmp(region, "cn-", 3) == 0 ? ".cn" : "";
    if (endpoint)
        rc = set_text(&s->sts_endpoint, endpoint, error);
    else if (asprintf(&s->sts_endpoint, "https://sts.%s.amazonaws.com%s/", region, suffix) < 0) {
        s->sts_endpoint = NULL;
        rc = error_set(error, -ENOMEM, "no memory");
    }
    return rc ? rc : 1;
}

static int from_web_identity(struct credentials *c, const char *region, struct error *error)
{
    const char *token_file = environment("AWS_WEB_IDENTITY_TOKEN_FILE");
    const char *role_arn = environment("AWS_ROLE_ARN");
    if (!token_file || !role_arn)
        return 0;
    return take_web_identity(c, "web identity", token_file, role_arn,
                             environment("AWS_ROLE_SESSION_NAME"), region, error);
}

static int from_profile(struct credentials *c, const struct store_options *o, const char *region,
                        struct error *error)
{
    cleanup(free_profiles) struct profiles profiles = {NULL};
    const char *name = profile_name(o);
    int rc = profiles_read(&profiles, error);
    if (rc)
        return rc;
    const struct profile *p = profiles_find(&profiles, name);
    char where[80];
    snprintf(where, sizeof(where), "profile %.60s", name);
    if (!p)
        return o->profile || environment("AWS_PROFILE")
                   ? error_set(error, -EINVAL, "there is no profile \"%s\"", name)
                   : 0;
    const char *access_key = profile_get(p, "aws_access_key_id");
    const char *command = profile_get(p, "credential_process");
    const char *token_file = profile_get(p, "web_identity_token_file");
    const char *role_arn = profile_get(p, "role_arn");
    if (access_key)
        return take_static(c, where, access_key, profile_get(p, "aws_secret_access_key"),
                           profile_get(p, "aws_session_token"), error);
    if (token_file && role_arn)
        return take_web_identity(c, where, token_file, role_arn,
                                 profile_get(p, "role_session_name"), region, error);
    if (command) {
        c->source.kind = CREDENTIALS_PROCESS;
        snprintf(c->source_name, sizeof(c->source_name), "%s", where);
        rc = set_text(&c->source.command, command, error);
        return rc ? rc : 1;
    }
    if (role_arn || profile_get(p, "sso_session") || profile_get(p, "sso_start_url"))
        return error_set(error, -EINVAL,
                         "%s assumes a role or signs on: name a credential_process that does it",
                         where);
    return 0;
}

static int from_container(struct credentials *c, struct error *error)
{
    const char *relative = environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    if (!relative && !full)
        return 0;
    struct credential_source *s = &c->source;
    s->kind = CREDENTIALS_CONTAINER;
    snprintf(c->source_name, sizeof(c->source_name), "container");
    if (asprintf(&s->url, "%s%s", relative ? "http://169.254.170.2" : "",
                 relative ? relative : full) < 0) {
        s->url = NULL;
        return error_set(error, -ENOMEM, "no memory");
    }
    const char *token = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    const char *file = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    int rc = token ? set_text(&s->authorization, token, error) : 0;
    if (rc == 0 && file)
        rc = set_text(&s->authorization_file, file, error);
    return rc ? rc : 1;
}

static int from_instance(struct credentials *c, struct error *error)
{
    const char *disabled = environment("AWS_EC2_METADATA_DISABLED");
    if (disabled && strcasecmp(disabled, "true") == 0)
        return 0;
    const char *endpoint = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    if (!endpoint)
        endpoint = "http://169.254.169.254";
    c->source.kind = CREDENTIALS_INSTANCE;
    snprintf(c->source_name, sizeof(c->source_name), "instance metadata");
    size_t len = strlen(endpoint);
    while (len > 0 && endpoint[len - 1] == '/')
        len--;
    c->source.url = strndup(endpoint, len);
    return c->source.url ? 1 : error_set(error, -ENOMEM, "no memory");
}

static int find_source(struct credentials *c, const struct store_options *o, const char *region,
                       struct error *error)
{
    if (o->keys) {
        c->source.kind = CREDENTIALS_KEYS;
        c->source.keys = *o->keys;
        snprintf(c->source_name, sizeof(c->source_name), "the metadata service");
        return 0;
    }
    int rc = from_options(c, o, error);
    /* A profile that was asked for by name comes before what the environment happens to hold. */
    if (rc == 0 && o->profile)
        rc = from_profile(c, o, region, error);
    if (rc == 0)
        rc = from_environment(c, error);
    if (rc == 0)
        rc = from_web_identity(c, region, error);
    if (rc == 0 && !o->profile)
        rc = from_profile(c, o, region, error);
    if (rc == 0)
        rc = from_container(c, error);
    if (rc == 0)
        rc = from_instance(c, error);
    if (rc == 0)
        rc =
            error_set(error, -EACCES,
                      "no credentials: looked at options, AWS_ACCESS_KEY_ID, web identity, profile "
                      "\"%s\" and container (instance metadata is disabled)",
                      profile_name(o));
    return rc < 0 ? rc : 0;
}

/* ---- refresh ---- */

static void plan_refresh(struct credentials *c)
{
    int64_t expires = c->current.expires_s, now = now_s();
    if (!expires) {
        c->refresh_at_s = 0;
        return;
    }
    int64_t life = MAX(0, expires - now);
    c->refresh_at_s = now + MAX(life - REFRESH_BEFORE_S, life / 2);
}

static void on_fetched(struct loop_task *task)
{
    struct credentials *c = container_of(task, struct credentials, fetched);
    c->refreshing = false;
    if (c->fetch_rc) {
        snprintf(c->last_failure, sizeof(c->last_failure), "%.255s", error_text(&c->fetch_error));
        c->refresh_at_s = now_s() + RETRY_S;
        char quoted[512];
        log_warn("credentials not refreshed", "source=%s error=%s", c->source_name,
                 log_quote(c->last_failure, quoted, sizeof(quoted)));
        return;
    }
    credential_set_done(&c->current);
    c->current = c->next;
    c->next = (struct credential_set){0};
    c->rejected = false;
    plan_refresh(c);
    log_info("credentials refreshed", "source=%s expires_in_s=%lld", c->source_name,
             (long long)(c->current.expires_s ? c->current.expires_s - now_s() : 0));
}

static void on_fetch(struct pool_task *task)
{
    struct credentials *c = container_of(task, struct credentials, fetch);
    error_clear(&c->fetch_error);
    c->fetch_rc = credential_source_fetch(&c->source, &c->next, &c->fetch_error);
    loop_post(c->loop, &c->fetched);
}

static void refresh(struct credentials *c)
{
    if (c->refreshing || !c->pool)
        return;
    c->refreshing = true;
    c->fetch.run = on_fetch;
    c->fetched.run = on_fetched;
    pool_submit(c->pool, &c->fetch);
}

int credentials_get(struct credentials *c, const struct credential_set **out, struct error *error)
{
    int64_t now = now_s();
    if (c->refresh_at_s && now >= c->refresh_at_s)
        refresh(c);
    bool expired = c->rejected || (c->current.expires_s && now >= c->current.expires_s);
    /* Without a source to ask again, the server shall say what it thinks of an old set. */
    if (expired && c->pool)
        return error_set(error, -EACCES, "the credentials (%s) have expired%s%s", c->source_name,
                         c->last_failure[0] ? ": " : "", c->last_failure);
    *out = &c->current;
    return 0;
}

const uint8_t *credential_day_key(const struct credential_set *set, const char *time)
{
    for (unsigned i = 0; i < set->day_count; i++) {
        if (strncmp(set->days[i].day, time, 8) == 0)
            return set->days[i].key;
    }
    return NULL;
}

bool credentials_reject(struct credentials *c)
{
    if (!c->pool)
        return false;
    if (!c->refreshing) {
        c->rejected = true;
        c->refresh_at_s = now_s();
        refresh(c);
    }
    return true;
}

const char *credentials_source(const struct credentials *c)
{
    return c->source_name;
}

/* ---- life ---- */

int credentials_new(struct credentials **out, struct loop *loop,
                    const struct store_options *options, const char *region, struct error *error)
{
    struct credentials *c = calloc(1, sizeof(*c));
    if (!c)
        return error_set(error, -ENOMEM, "no memory");
    c->loop = loop;
    int rc = find_source(c, options, region, error);
    if (rc == 0 && c->source.kind != CREDENTIALS_STATIC) {
        rc = credential_source_fetch(&c->source, &c->current, error);
        if (rc)
            error_prefix(error, "no credentials");
        else
            rc = pool_new(&c->pool, "credentials", 1);
    }
    if (rc) {
        credentials_free(c);
        return rc;
    }
    plan_refresh(c);
    *out = c;
    return 0;
}

static void nothing(void *arg)
{
}

void credentials_free(struct credentials *c)
{
    if (!c)
        return;
    pool_free(c->pool);
    /* A fetch that ended has posted its task: it runs before this call returns. */
    loop_call(c->loop, nothing, NULL);
    credential_set_done(&c->current);
    credential_set_done(&c->next);
    credential_source_done(&c->source);
    free(c);
}
