/* Tokens of a service's volume on its disk: DATA/NAME/tokens.json, mode 0600. docs/security.md. */
#ifndef SLUICE_CLI_VOLUME_TOKENS_H
#define SLUICE_CLI_VOLUME_TOKENS_H

#include "base/error.h"
#include "meta/token.h"

/* An empty set if there is no file. -EINVAL and others with a sentence. */
int volume_tokens_load(const char *data_dir, const char *name, struct token_set *out,
                       struct error *error);
/* Replaces the file: whole or not at all. */
int volume_tokens_save(const char *data_dir, const char *name, const struct token_set *set,
                       struct error *error);

/* As the command line says it; NULL: not. */
struct token_options {
    char *rights, *path, *expires, *squash, *anonymous, *uid_map, *gid_map;
};

/* `sluice volume token …`: args are what follows. `tell` is called when the file has changed. */
int volume_token(const char *data_dir, const struct token_options *options, char **args,
                 unsigned count,
                 int (*tell)(const char *data_dir, const char *name, struct error *error),
                 struct error *error);

#endif
