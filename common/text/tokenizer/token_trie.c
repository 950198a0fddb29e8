#include "text/tokenizer/token_trie.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/tokenizer/vocabulary.h"

static uint32_t new_node(TokenTrie *trie, unsigned char byte)
{
    if (trie->count == trie->capacity) {
        trie->capacity = trie->capacity * 2 + 64;
        trie->node = mem_realloc(trie->node, trie->capacity, sizeof *trie->node);
    }
    trie->node[trie->count] = (TrieNode){.token = TOKEN_NONE, .byte = byte};
    return trie->count++;
}

static uint32_t find_child(const TokenTrie *trie, uint32_t parent, unsigned char byte)
{
    uint32_t child = trie->node[parent].first_child;
    while (child != 0 && trie->node[child].byte != byte)
        child = trie->node[child].next_sibling;
    return child;
}

void token_trie_add(TokenTrie *trie, const char *string, size_t length, uint32_t token)
{
    unsigned char last = (unsigned char)string[length - 1];
    if (trie->count == 0) {
        new_node(trie, 0);
        trie->only_last_byte = last;
    }
    if (last != trie->only_last_byte) trie->only_last_byte = -1;
    uint32_t at = 0;
    for (size_t i = length; i > 0; i--) {
        unsigned char byte = (unsigned char)string[i - 1];
        uint32_t child = find_child(trie, at, byte);
        if (child == 0) {
            child = new_node(trie, byte);
            trie->node[child].next_sibling = trie->node[at].first_child;
            trie->node[at].first_child = child;
        }
        at = child;
    }
    trie->start[last] = find_child(trie, 0, last);
    trie->node[at].token = token;
}

/* The state behind `byte`, which lies before what the state `node` has seen. */
static inline uint32_t step(const TokenTrie *trie, uint32_t node, unsigned char byte)
{
    while (node != 0) {
        uint32_t child = find_child(trie, node, byte);
        if (child != 0) return child;
        node = trie->node[node].fail;
    }
    return trie->start[byte];
}

/* Level by level, since a node fails to one nearer to the root. */
void token_trie_finish(TokenTrie *trie)
{
    uint32_t *queue = mem_alloc((trie->count + 1) * sizeof *queue), end = 0;
    if (trie->count > 0) queue[end++] = 0;
    for (uint32_t begin = 0; begin < end; begin++) {
        uint32_t parent = queue[begin];
        for (uint32_t child = trie->node[parent].first_child; child != 0;
             child = trie->node[child].next_sibling) {
            TrieNode *node = &trie->node[child];
            node->fail = parent == 0 ? 0 : step(trie, trie->node[parent].fail, node->byte);
            node->output = node->token != TOKEN_NONE ? child : trie->node[node->fail].output;
            queue[end++] = child;
        }
    }
    free(queue);
}

void token_trie_free(TokenTrie *trie)
{
    free(trie->node);
    *trie = (TokenTrie){0};
}

void token_sites_free(TokenSites *sites)
{
    free(sites->site);
    *sites = (TokenSites){0};
}

static void push_site(TokenSites *sites, uint32_t at, uint32_t node)
{
    if (sites->count == sites->capacity) {
        sites->capacity = sites->capacity * 2 + 64;
        sites->site = mem_realloc(sites->site, sites->capacity, sizeof *sites->site);
    }
    sites->site[sites->count++] = (TokenSite){at, node};
}

/* The end of the longest beginning of text[0, length) in whose last byte some string may end. */
static uint32_t skip_back(const TokenTrie *trie, const char *text, uint32_t length)
{
    if (trie->only_last_byte >= 0) {
        const char *found = memrchr(text, trie->only_last_byte, length);
        return found == NULL ? 0 : (uint32_t)(found - text) + 1;
    }
    while (length > 0 && trie->start[(unsigned char)text[length - 1]] == 0)
        length--;
    return length;
}

void token_trie_find(const TokenTrie *trie, const char *text, uint32_t length, TokenSites *ret)
{
    uint32_t node = 0, at = length;
    ret->count = 0;
    if (trie->count == 0) return;
    for (;;) {
        if (node == 0) at = skip_back(trie, text, at);
        if (at == 0) return;
        node = step(trie, node, (unsigned char)text[--at]);
        if (trie->node[node].output != 0) push_site(ret, at, trie->node[node].output);
    }
}
