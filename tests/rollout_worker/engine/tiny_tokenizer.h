/* A byte-level tokenizer of 131 ids whose tokens end and begin inside characters and words: what
 * stop strings have to live with. Ids 120 and above have no text. */
#ifndef TROUPE_TESTS_TINY_TOKENIZER_H
#define TROUPE_TESTS_TINY_TOKENIZER_H

#include "text/tokenizer/tokenizer.h"

#define TINY_VOCAB 131

Tokenizer *tiny_tokenizer(void);

#endif
