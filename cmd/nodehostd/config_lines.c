#include "cmd/nodehostd/config_lines.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "cmd/nodehostd/buffer.h"

struct config_lines {
    yaml_document_t document;
};

struct config_lines *config_lines_new(const char *text, size_t size_bytes)
{
    struct config_lines *l = must_alloc(calloc(1, sizeof *l));
    yaml_parser_t parser;
    int loaded;

    if (!yaml_parser_initialize(&parser)) {
        free(l);
        return NULL;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size_bytes);
    loaded = yaml_parser_load(&parser, &l->document);
    yaml_parser_delete(&parser);
    if (loaded)
        return l;
    free(l);
    return NULL;
}

void config_lines_free(struct config_lines *l)
{
    if (!l)
        return;
    yaml_document_delete(&l->document);
    free(l);
}

yaml_document_t *config_lines_document(const struct config_lines *l)
{
    return (yaml_document_t *)(size_t)&l->document; /* libyaml's readers are not const */
}

static int is_key(const yaml_node_t *node, const char *name)
{
    return node && node->type == YAML_SCALAR_NODE && node->data.scalar.length == strlen(name) &&
           memcmp(node->data.scalar.value, name, node->data.scalar.length) == 0;
}

/* The child that one step of a path names; *ret_line becomes that of its key or of itself. */
static yaml_node_t *descend(const struct config_lines *l, const yaml_node_t *node, const char *name, unsigned *ret_line)
{
    if (node->type == YAML_MAPPING_NODE) {
        for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
            yaml_node_t *key = yaml_document_get_node(config_lines_document(l), p->key);

            if (!is_key(key, name))
                continue;
            *ret_line = (unsigned)key->start_mark.line + 1;
            return yaml_document_get_node(config_lines_document(l), p->value);
        }
    }
    if (node->type == YAML_SEQUENCE_NODE) {
        size_t i = strtoul(name, NULL, 10), n = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
        yaml_node_t *item = i < n ? yaml_document_get_node(config_lines_document(l), node->data.sequence.items.start[i]) : NULL;

        if (item)
            *ret_line = (unsigned)item->start_mark.line + 1;
        return item;
    }
    return NULL;
}

unsigned config_lines_of(const struct config_lines *l, const char *const *path)
{
    const yaml_node_t *node = yaml_document_get_root_node(config_lines_document(l));
    unsigned line = node ? (unsigned)node->start_mark.line + 1 : 1;

    for (; node && *path; path++)
        node = descend(l, node, *path, &line);
    return line;
}

unsigned config_lines_of_key(const struct config_lines *l, const char *key)
{
    const yaml_node_t *node;

    for (int i = 1; (node = yaml_document_get_node(config_lines_document(l), i)); i++) {
        if (node->type != YAML_MAPPING_NODE)
            continue;
        for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
            const yaml_node_t *k = yaml_document_get_node(config_lines_document(l), p->key);

            if (is_key(k, key))
                return (unsigned)k->start_mark.line + 1;
        }
    }
    return 0;
}
