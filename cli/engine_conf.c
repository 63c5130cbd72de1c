#include "engine_conf.h"

#include <ctype.h>
#include <errno.h>
#include <expat.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define DEPTH_MAX 32 /* of elements, and of nested YAML names */

void engine_conf_done(struct engine_conf *conf)
{
    for (size_t i = 0; i < conf->count; i++) {
        free(conf->entries[i].name);
        free(conf->entries[i].value);
    }
    free(conf->entries);
    *conf = (struct engine_conf){0};
}

const char *engine_conf_get(const struct engine_conf *conf, const char *name)
{
    for (size_t i = conf->count; i > 0; i--)
        if (strcmp(conf->entries[i - 1].name, name) == 0)
            return conf->entries[i - 1].value;
    return NULL;
}

struct span {
    const char *at;
    size_t len;
};

static struct span trimmed(const char *at, size_t len)
{
    while (len > 0 && isspace((unsigned char)*at)) {
        at++;
        len--;
    }
    while (len > 0 && isspace((unsigned char)at[len - 1]))
        len--;
    return (struct span){len > 0 ? at : "", len};
}

static int add(struct engine_conf *conf, struct span name, struct span value, struct error *error)
{
    if (name.len > ENGINE_CONF_NAME_MAX)
        return error_set(error, -EINVAL, "a name is longer than %d bytes", ENGINE_CONF_NAME_MAX);
    if (conf->count == ENGINE_CONF_ENTRIES_MAX)
        return error_set(error, -EINVAL, "it sets more than %d names", ENGINE_CONF_ENTRIES_MAX);
    if (conf->count == conf->room) {
        size_t room = conf->room ? conf->room * 2 : 64;
        void *entries = realloc(conf->entries, room * sizeof(*conf->entries));
        if (!entries)
            return error_set(error, -ENOMEM, "no memory");
        conf->entries = entries;
        conf->room = room;
    }
    struct engine_conf_entry *entry = &conf->entries[conf->count];
    *entry = (struct engine_conf_entry){.name = strndup(name.at, name.len),
                                        .value = strndup(value.at, value.len)};
    if (!entry->name || !entry->value) {
        free(entry->name);
        free(entry->value);
        return error_set(error, -ENOMEM, "no memory");
    }
    conf->count++;
    return 0;
}

/* --- Hadoop's XML: configuration > property > name, value */
struct xml {
    XML_Parser parser;
    struct engine_conf *conf;
    struct error *error;
    unsigned depth;
    bool in_property;
    struct buf name, value, *into;
    int result;
};

static void xml_stop(struct xml *x, int result)
{
    x->result = result;
    XML_StopParser(x->parser, XML_FALSE);
}

static void xml_start(void *arg, const char *element, const char **attributes)
{
    struct xml *x = arg;
    (void)attributes;
    x->into = NULL;
    if (x->depth == DEPTH_MAX) {
        xml_stop(x, error_set(x->error, -EINVAL, "elements are nested too deep"));
        return;
    }
    if (x->depth == 0 && strcmp(element, "configuration") != 0) {
        xml_stop(x, error_set(x->error, -EINVAL, "it is XML, but <%.40s> and not <configuration>",
                              element));
        return;
    }
    x->depth++;
    if (x->depth == 2) {
        x->in_property = strcmp(element, "property") == 0;
        buf_reset(&x->name);
        buf_reset(&x->value);
    } else if (x->depth == 3 && x->in_property) {
        x->into = strcmp(element, "name") == 0    ? &x->name
                  : strcmp(element, "value") == 0 ? &x->value
                                                  : NULL;
    }
}

static void xml_text(void *arg, const char *text, int len)
{
    struct xml *x = arg;
    if (x->into && len > 0)
        buf_put(x->into, text, (size_t)len);
}

static void xml_end(void *arg, const char *element)
{
    struct xml *x = arg;
    (void)element;
    x->into = NULL;
    if (x->depth-- != 2 || !x->in_property || x->name.len == 0)
        return;
    if (buf_error(&x->name) < 0 || buf_error(&x->value) < 0) {
        xml_stop(x, error_set(x->error, -ENOMEM, "no memory"));
        return;
    }
    int result = add(x->conf, trimmed((const char *)x->name.data, x->name.len),
                     trimmed((const char *)x->value.data, x->value.len), x->error);
    if (result < 0)
        xml_stop(x, result);
}

/* A configuration has no entities of its own; with them a small file could become a huge one. */
static void xml_entity(void *arg, const char *name, int is_parameter, const char *value,
                       int value_len, const char *base, const char *system_id,
                       const char *public_id, const char *notation)
{
    struct xml *x = arg;
    (void)name, (void)is_parameter, (void)value, (void)value_len, (void)base, (void)system_id;
    (void)public_id, (void)notation;
    xml_stop(x, error_set(x->error, -EINVAL, "it declares entities"));
}

static int parse_xml(struct engine_conf *out, const char *text, size_t len, struct error *error)
{
    struct xml x = {.conf = out, .error = error};
    x.parser = XML_ParserCreate(NULL);
    if (!x.parser)
        return error_set(error, -ENOMEM, "no memory");
    buf_init(&x.name, 0);
    buf_init(&x.value, 0);
    XML_SetUserData(x.parser, &x);
    XML_SetElementHandler(x.parser, xml_start, xml_end);
    XML_SetCharacterDataHandler(x.parser, xml_text);
    XML_SetEntityDeclHandler(x.parser, xml_entity);
    if (XML_Parse(x.parser, text, (int)len, 1) != XML_STATUS_OK && x.result == 0)
        x.result = error_set(error, -EINVAL, "line %lu: %s",
                             (unsigned long)XML_GetCurrentLineNumber(x.parser),
                             XML_ErrorString(XML_GetErrorCode(x.parser)));
    XML_ParserFree(x.parser);
    buf_done(&x.name);
    buf_done(&x.value);
    return x.result;
}

/* --- Lines */
static size_t indent_of(const char *line, size_t len)
{
    size_t indent = 0;
    while (indent < len && line[indent] == ' ')
        indent++;
    return indent;
}

/* "name value", "name=value", "name: value" */
static int parse_property(struct engine_conf *out, struct span line, struct error *error)
{
    size_t end = 0;
    while (end < line.len && !isspace((unsigned char)line.at[end]) && line.at[end] != '=' &&
           line.at[end] != ':')
        end++;
    struct span name = {line.at, end};
    struct span value = trimmed(line.at + end, line.len - end);
    if (value.len > 0 && (*value.at == '=' || *value.at == ':'))
        value = trimmed(value.at + 1, value.len - 1);
    return name.len ? add(out, name, value, error) : 0;
}

/* The names that lines with less indentation opened. */
struct yaml {
    struct {
        size_t indent, prefix_len; /* of `prefix`, with this name and its dot */
    } open[DEPTH_MAX];
    unsigned depth;
    char prefix[ENGINE_CONF_NAME_MAX + 1];
};

static struct span without_quotes(struct span value)
{
    if (value.len >= 2 && (*value.at == '"' || *value.at == '\'') &&
        value.at[value.len - 1] == *value.at)
        return (struct span){value.at + 1, value.len - 2};
    /* a comment behind a value */
    for (size_t i = 1; i < value.len; i++)
        if (value.at[i] == '#' && isspace((unsigned char)value.at[i - 1]))
            return trimmed(value.at, i);
    return value;
}

static int parse_yaml_line(struct engine_conf *out, struct yaml *y, const char *raw, size_t raw_len,
                           struct span line, struct error *error)
{
    if (*line.at == '-') /* an item of a list, or the begin of a document */
        return 0;
    size_t end = 0;
    while (end < line.len && !(line.at[end] == ':' &&
                               (end + 1 == line.len || isspace((unsigned char)line.at[end + 1]))))
        end++;
    if (end == line.len || end == 0)
        return 0;
    size_t indent = indent_of(raw, raw_len);
    while (y->depth > 0 && y->open[y->depth - 1].indent >= indent)
        y->depth--;
    size_t used = y->depth ? y->open[y->depth - 1].prefix_len : 0;
    struct span key = without_quotes((struct span){line.at, end});
    if (key.len + 1 > ENGINE_CONF_NAME_MAX - used)
        return error_set(error, -EINVAL, "a name is longer than %d bytes", ENGINE_CONF_NAME_MAX);
    memcpy(y->prefix + used, key.at, key.len);
    struct span value = without_quotes(trimmed(line.at + end + 1, line.len - end - 1));
    if (value.len > 0)
        return add(out, (struct span){y->prefix, used + key.len}, value, error);
    if (y->depth == DEPTH_MAX)
        return error_set(error, -EINVAL, "names are nested too deep");
    y->prefix[used + key.len] = '.';
    y->open[y->depth].indent = indent;
    y->open[y->depth++].prefix_len = used + key.len + 1;
    return 0;
}

static int parse_lines(struct engine_conf *out, const char *text, size_t len, bool yaml,
                       struct error *error)
{
    struct yaml y = {.depth = 0};
    const char *end = text + len;
    int result = 0;
    for (const char *at = text; result == 0 && at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t raw_len = (size_t)((newline ? newline : end) - at);
        struct span line = trimmed(at, raw_len);
        if (line.len > 0 && *line.at != '#' && *line.at != '!')
            result = yaml ? parse_yaml_line(out, &y, at, raw_len, line, error)
                          : parse_property(out, line, error);
        at = newline ? newline + 1 : end;
    }
    return result;
}

int engine_conf_parse(struct engine_conf *out, const char *text, size_t len, bool yaml,
                      enum engine_conf_format *format, struct error *error)
{
    if (len > ENGINE_CONF_TEXT_MAX)
        return error_set(error, -EINVAL, "it has more than %u bytes", ENGINE_CONF_TEXT_MAX);
    if (memchr(text, 0, len))
        return error_set(error, -EINVAL, "it is no text");
    struct span all = trimmed(text, len);
    if (all.len > 0 && *all.at == '<') {
        *format = ENGINE_CONF_XML;
        return parse_xml(out, all.at, all.len, error);
    }
    *format = yaml ? ENGINE_CONF_YAML : ENGINE_CONF_PROPERTIES;
    return parse_lines(out, text, len, yaml, error);
}
