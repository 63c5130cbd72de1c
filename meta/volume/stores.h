/* Between a volume and its other stores. */
#ifndef SLUICE_META_STORES_INTERNAL_H
#define SLUICE_META_STORES_INTERNAL_H

#include "meta/stores.h"
#include "s3/open.h"

struct stores;

/* At open, when the engine and the work thread are there: connects the recorded stores, each by a
 * thread of its own, and waits a little for them. One that cannot be reached is tried again and
 * again; until then its requests end in -EIO. */
int stores_start(struct meta *meta, struct stores **out, struct error *error);
/* Work thread, at close: no more renewals and tries. */
void stores_stop(struct stores *stores);
/* Blocking, after the work thread has stopped its work: gives the prefixes back. */
void stores_give_back(struct stores *stores);
void stores_free(struct stores *stores);

/* store_config.c: the options of a recorded store. Strings point into `json`. */
int store_config_options(const json_t *json, struct store_options *out, struct error *error);
/* Parses and checks; a new reference. */
int store_config_parse(const char *text, json_t **out, struct error *error);
int store_config_name(const char *name, struct error *error);
/* Opens a store by its URL and options, without a request to it. */
int store_config_connect(const struct meta_store *info, struct loop *loop, struct store **out,
                         struct error *error);
/* Opens a recorded store, looks whether it answers (within STORE_LOOK_MS), and probes it unless it
 * is read-only. Blocking. */
#define STORE_LOOK_MS 5000
int store_config_open(const struct meta_store *info, struct loop *loop, struct store **out,
                      struct error *error);

#endif
