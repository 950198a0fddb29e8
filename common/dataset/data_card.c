#include "dataset/data_card.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <yaml.h>

#include "base/file.h"
#include "base/memory.h"

#define CARD_BYTES_MAX (1 << 20) /* the front matter; of what follows nothing is read */
#define CONFIGS_MAX    4096

void card_config_clear(CardConfig *config)
{
    for (int i = 0; i < config->num_splits; i++) {
        free(config->split[i].name);
        string_list_free(&config->split[i].pattern);
    }
    free(config->split);
    free(config->name);
    free(config->data_dir);
    *config = (CardConfig){0};
}

void data_card_free(DataCard *card)
{
    for (int i = 0; i < card->num_configs; i++)
        card_config_clear(&card->config[i]);
    free(card->config);
    *card = (DataCard){0};
}

CardSplit *card_split(CardConfig *config, const char *name)
{
    for (int i = 0; i < config->num_splits; i++)
        if (strcmp(config->split[i].name, name) == 0) return &config->split[i];
    config->split =
        mem_realloc(config->split, (size_t)config->num_splits + 1, sizeof *config->split);
    config->split[config->num_splits] = (CardSplit){.name = mem_strdup(name)};
    return &config->split[config->num_splits++];
}

/* A document under way: what is wrong with it is said once. */
typedef struct CardReader {
    const char *path;
    yaml_document_t *document;
    Error *err;
} CardReader;

static Status refuse(const CardReader *reader, const yaml_node_t *node, const char *expected)
{
    return error_set(
        reader->err, ERR_DATA,
        "%s:%zu: `configs` cannot be read\n  expected: %s\n  to do: correct it, or name "
        "the files themselves",
        reader->path, node->start_mark.line + 2, expected);
}

static yaml_node_t *node_of(const CardReader *reader, int id)
{
    return yaml_document_get_node(reader->document, id);
}

static const char *text_of(const yaml_node_t *node)
{
    return node != NULL && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value
                                                          : NULL;
}

/* The value under a key of a mapping, or NULL. */
static yaml_node_t *member(const CardReader *reader, const yaml_node_t *node, const char *key)
{
    if (node == NULL || node->type != YAML_MAPPING_NODE) return NULL;
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top; pair++) {
        const char *name = text_of(node_of(reader, pair->key));
        if (name != NULL && strcmp(name, key) == 0) return node_of(reader, pair->value);
    }
    return NULL;
}

static int items_of(const yaml_node_t *node)
{
    if (node == NULL || node->type != YAML_SEQUENCE_NODE) return 0;
    return (int)(node->data.sequence.items.top - node->data.sequence.items.start);
}

static yaml_node_t *item_of(const CardReader *reader, const yaml_node_t *node, int index)
{
    return node_of(reader, node->data.sequence.items.start[index]);
}

/* A pattern or a list of them. */
static Status read_patterns(const CardReader *reader, const yaml_node_t *node, StringList *ret)
{
    if (text_of(node) != NULL) {
        string_list_append(ret, text_of(node));
        return OK;
    }
    for (int i = 0; i < items_of(node); i++) {
        const yaml_node_t *item = item_of(reader, node, i);
        if (text_of(item) == NULL) return refuse(reader, item, "paths of files");
        string_list_append(ret, text_of(item));
    }
    return items_of(node) > 0 ? OK : refuse(reader, node, "a path or a list of paths");
}

/* `data_files`: patterns of the split train, or a list of {split, path}. */
static Status read_data_files(const CardReader *reader, const yaml_node_t *node, CardConfig *config)
{
    bool named = items_of(node) > 0 && item_of(reader, node, 0)->type == YAML_MAPPING_NODE;
    if (!named) return read_patterns(reader, node, &card_split(config, "train")->pattern);
    for (int i = 0; i < items_of(node) && i < CONFIGS_MAX; i++) {
        const yaml_node_t *item = item_of(reader, node, i);
        const char *name = text_of(member(reader, item, "split"));
        const yaml_node_t *path = member(reader, item, "path");
        if (name == NULL || path == NULL) return refuse(reader, item, "`split` and `path`");
        TRY(read_patterns(reader, path, &card_split(config, name)->pattern));
    }
    return OK;
}

static Status read_config(const CardReader *reader, const yaml_node_t *node, DataCard *card)
{
    const char *name = text_of(member(reader, node, "config_name"));
    if (node->type != YAML_MAPPING_NODE) return refuse(reader, node, "a list of configurations");
    card->config = mem_realloc(card->config, (size_t)card->num_configs + 1, sizeof *card->config);
    CardConfig *config = &card->config[card->num_configs++];
    *config = (CardConfig){.name = mem_strdup(name != NULL ? name : "default"),
                           .data_dir = mem_strdup(text_of(member(reader, node, "data_dir")))};
    const char *standard = text_of(member(reader, node, "default"));
    config->is_default = standard != NULL && strcasecmp(standard, "true") == 0;
    const yaml_node_t *files = member(reader, node, "data_files");
    return files != NULL ? read_data_files(reader, files, config) : OK;
}

static Status read_document(const CardReader *reader, DataCard *ret)
{
    const yaml_node_t *root = yaml_document_get_root_node(reader->document);
    const yaml_node_t *configs = member(reader, root, "configs");
    if (configs != NULL && configs->type != YAML_SEQUENCE_NODE)
        return refuse(reader, configs, "a list of configurations");
    for (int i = 0; i < items_of(configs) && i < CONFIGS_MAX; i++)
        TRY(read_config(reader, item_of(reader, configs, i), ret));
    return OK;
}

/* The text between the first line and the next that is "---", cut at CARD_BYTES_MAX; NULL when
 * there is no such thing. Owned. */
static char *read_front_matter(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return NULL;
    char *text = mem_alloc(CARD_BYTES_MAX + 1);
    ssize_t length = pread(fd, text, CARD_BYTES_MAX, 0);
    close(fd);
    text[length > 0 ? length : 0] = '\0';
    char *begin = strncmp(text, "---\n", 4) == 0 ? text + 4 : NULL;
    if (strncmp(text, "---\r\n", 5) == 0) begin = text + 5;
    char *end = begin != NULL ? strstr(begin - 1, "\n---") : NULL;
    char *matter = end != NULL ? mem_strndup(begin, end < begin ? 0 : (size_t)(end - begin)) : NULL;
    free(text);
    return matter;
}

Status data_card_read(const char *path, DataCard *ret, Error *err)
{
    char *text = read_front_matter(path);
    *ret = (DataCard){0};
    Status status = OK;
    if (text != NULL) {
        yaml_parser_t parser;
        yaml_document_t document;
        CHECK(yaml_parser_initialize(&parser));
        yaml_parser_set_input_string(&parser, (const unsigned char *)text, strlen(text));
        if (yaml_parser_load(&parser, &document)) {
            CardReader reader = {path, &document, err};
            status = read_document(&reader, ret);
            yaml_document_delete(&document);
        } else {
            status =
                error_set(err, ERR_DATA,
                          "%s:%zu: its YAML cannot be read: %s\n  to do: correct it, or name the "
                          "files themselves",
                          path, parser.problem_mark.line + 2,
                          parser.problem != NULL ? parser.problem : "not UTF-8");
        }
        yaml_parser_delete(&parser);
    }
    if (status != OK) data_card_free(ret);
    free(text);
    return status;
}
