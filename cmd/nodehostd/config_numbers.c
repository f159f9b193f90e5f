#include "cmd/nodehostd/config_numbers.h"

#include <cyaml/cyaml.h>
#include <stdbool.h>
#include <string.h>
#include <yaml.h>

struct walk {
    const char *path;
    yaml_document_t *document;
    ptrdiff_t n_left; /* nodes that can still be met */
    struct nh_error *err;
};

/* ---- one number ---- */

/* By the end of the key. */
static const char *unit_of(const char *key)
{
    static const char *const units[][2] = {{"_bytes", " of bytes"},
                                           {"_bytes_per_s", " of bytes per second"},
                                           {"_ms", " of milliseconds"},
                                           {"_rtt", " of ticks"}};
    size_t n = strlen(key);

    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        size_t k = strlen(units[i][0]);

        if (n > k && strcmp(key + n - k, units[i][0]) == 0)
            return units[i][1];
    }
    return "";
}

static bool is_number(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return size == 1 || (size > 0 && text[0] != '0');
}

static int check_number(const struct walk *w, const yaml_node_t *node, const char *key)
{
    const char *text = (const char *)node->data.scalar.value;

    if (node->type != YAML_SCALAR_NODE || is_number(text, node->data.scalar.length))
        return NH_OK;
    return nh_error_set(w->err, NH_EINVAL,
                        "%s:%zu: %s is \"%.64s\": write a whole number%s, digits 0 to 9 alone: no unit, sign, point, comma or "
                        "leading zero",
                        w->path, node->start_mark.line + 1, key, text, unit_of(key));
}

/* The default of most keys that may be left out stands for 0 in the structures; of these two it is 0. */
static bool may_be_zero(const cyaml_schema_field_t *f)
{
    return !(f->value.flags & CYAML_FLAG_OPTIONAL) || strcmp(f->key, "priority") == 0 || strcmp(f->key, "send_bytes_per_s") == 0;
}

static int check_zero(const struct walk *w, int node_id, const cyaml_schema_field_t *f)
{
    const yaml_node_t *node = yaml_document_get_node(w->document, node_id);

    if (f->value.type != CYAML_UINT || may_be_zero(f) || node->type != YAML_SCALAR_NODE ||
        strcmp((const char *)node->data.scalar.value, "0") != 0)
        return NH_OK;
    return nh_error_set(w->err, NH_EINVAL,
                        "%s:%zu: %s is 0: give a number above 0, or leave the key out, which means the default", w->path,
                        node->start_mark.line + 1, f->key);
}

/* ---- one yes or no ---- */

static int check_switch(const struct walk *w, const yaml_node_t *node, const cyaml_schema_value_t *schema, const char *key)
{
    const char *text = (const char *)node->data.scalar.value;

    if (node->type != YAML_SCALAR_NODE)
        return NH_OK;
    for (uint32_t i = 0; i < schema->enumeration.count; i++)
        if (strcmp(schema->enumeration.strings[i].str, text) == 0)
            return NH_OK;
    return nh_error_set(w->err, NH_EINVAL, "%s:%zu: %s is \"%.64s\": write true or false", w->path, node->start_mark.line + 1,
                        key, text);
}

/* ---- the tree beside the schema ---- */

/* False: a node was met twice, so there is an alias, which libcyaml will refuse. Without this a small file could take for ever.
 */
static bool meet(struct walk *w)
{
    return w->n_left > 0 && w->n_left-- > 0;
}

static const cyaml_schema_field_t *find_field(const cyaml_schema_field_t *fields, const yaml_node_t *key)
{
    for (const cyaml_schema_field_t *f = fields; f->key && key->type == YAML_SCALAR_NODE; f++)
        if (strcmp(f->key, (const char *)key->data.scalar.value) == 0)
            return f;
    return NULL;
}

static int check_node(struct walk *w, int node_id, const cyaml_schema_value_t *schema, const char *key);

static int check_mapping(struct walk *w, const yaml_node_t *node, const cyaml_schema_field_t *fields)
{
    int r = NH_OK;

    for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top && r == NH_OK; p++) {
        const cyaml_schema_field_t *f = meet(w) ? find_field(fields, yaml_document_get_node(w->document, p->key)) : NULL;

        if (f)
            r = check_node(w, p->value, &f->value, f->key);
        if (f && r == NH_OK)
            r = check_zero(w, p->value, f);
    }
    return r;
}

static int check_node(struct walk *w, int node_id, const cyaml_schema_value_t *schema, const char *key)
{
    const yaml_node_t *node = yaml_document_get_node(w->document, node_id);
    int r = NH_OK;

    if (!meet(w))
        return NH_OK;
    if (schema->type == CYAML_UINT)
        return check_number(w, node, key);
    if (schema->type == CYAML_ENUM)
        return check_switch(w, node, schema, key);
    if (schema->type == CYAML_MAPPING && node->type == YAML_MAPPING_NODE)
        return check_mapping(w, node, schema->mapping.fields);
    if (schema->type != CYAML_SEQUENCE || node->type != YAML_SEQUENCE_NODE)
        return NH_OK;
    for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top && r == NH_OK; i++)
        r = check_node(w, *i, schema->sequence.entry, key);
    return r;
}

int config_numbers_check(const char *path, const struct config_lines *lines, const struct cyaml_schema_value *schema,
                         struct nh_error *err)
{
    yaml_document_t *document = config_lines_document(lines);
    struct walk w = {path, document, document->nodes.top - document->nodes.start, err};

    return document->nodes.top > document->nodes.start ? check_node(&w, 1, schema, "") : NH_OK; /* 1: the root */
}
