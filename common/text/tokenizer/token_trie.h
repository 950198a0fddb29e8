/* TokenTrie: many strings found by one walk over a text, in time that grows with the text alone,
 * whatever the strings (Aho and Corasick, Efficient String Matching, CACM 18(6), 1975). The strings
 * are held back to front and the walk goes from the text's end to its beginning, so that the state
 * at a byte tells every string that begins there, the longest first. Const once finished. */
#ifndef TROUPE_TEXT_TOKENIZER_TOKEN_TRIE_H
#define TROUPE_TEXT_TOKENIZER_TOKEN_TRIE_H

#include <stddef.h>
#include <stdint.h>

typedef struct TrieNode {
    uint32_t first_child, next_sibling; /* 0: none */
    uint32_t fail;                      /* where the walk goes on if no child fits */
    uint32_t output; /* this node or the next by `fail` that ends a string; 0: none */
    uint32_t token;  /* the string that ends here, or TOKEN_NONE */
    unsigned char byte;
} TrieNode;

typedef struct TokenTrie {
    TrieNode *node; /* node[0] is the root */
    uint32_t count, capacity;
    uint32_t start[256]; /* the root's child for a last byte, or 0 */
    int only_last_byte;  /* the one byte in which every string ends, or -1 */
} TokenTrie;

/* Zero-initialise, add every string (not empty; of two equal ones the later counts), finish. */
void token_trie_add(TokenTrie *trie, const char *string, size_t length, uint32_t token);
void token_trie_finish(TokenTrie *trie);
void token_trie_free(TokenTrie *trie);

/* A place where strings begin: token_trie_token(trie, site.node) is the longest of them. */
typedef struct TokenSite {
    uint32_t at, node;
} TokenSite;

/* Zero-initialise; belongs to a thread. */
typedef struct TokenSites {
    TokenSite *site; /* the last place of the text first */
    size_t count, capacity;
} TokenSites;

void token_sites_free(TokenSites *sites);

/* All places of a text. */
void token_trie_find(const TokenTrie *trie, const char *text, uint32_t length, TokenSites *ret);

static inline uint32_t token_trie_token(const TokenTrie *trie, uint32_t node)
{
    return trie->node[node].token;
}

/* The next shorter string that begins at the same place; 0: there is none. */
static inline uint32_t token_trie_shorter(const TokenTrie *trie, uint32_t node)
{
    return trie->node[trie->node[node].fail].output;
}

#endif
