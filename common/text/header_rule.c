/* Where the reference's masks begin. Beside the templates that models ship, trl keeps twins that
 * mark with {% generation %} what is trained. All but five begin behind the header, as a mask from
 * the origins does; these five train the header or a part of it. Whoever comes from trl expects the
 * same trained tokens, so their rule is kept here. As in trl, a template is known by its whole
 * text: one that was changed has no twin. */
#include <string.h>

#include "base/digest.h"
#include "text/text_model.h"

/* By SHA-256 of the template without white space at its end. */
static const struct {
    const char *digest;
    HeaderRule rule;
} rules[] = {
    /* Qwen2.5: the block opens between "<|im_start|>assistant" and the newline */
    {"55b2f4a26ac9ee719330a61a0c39d9e538b0e9322212f048326318cff4f8674a", HEADER_LINE_END_TRAINED},
    /* DeepSeek-V3, DeepSeek-R1-Distill, gpt-oss, Muse Glimmer: all that the turn writes */
    {"563b1ce7d61d50a9b4c7439a912a1116f095b712df5b5e4d3e1116049874eb64", HEADER_TRAINED},
    {"56a1447ad31926fdc21fb07e56e5642bd9c850c4f52d8c8af7bbe5f079a84f5f", HEADER_TRAINED},
    {"a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146", HEADER_TRAINED},
    {"6cd0e94d9b489fdb9a000743791f20e7e52b62c1e5cbb66fcc91c6716595223a", HEADER_TRAINED},
};

HeaderRule header_rule_of(const char *source, size_t length)
{
    while (length > 0 && strchr(" \t\r\n", source[length - 1]) != NULL)
        length--;
    char digest[DIGEST_HEX_BYTES];
    digest_bytes(source, length, digest);
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (strcmp(digest, rules[i].digest) == 0) return rules[i].rule;
    return HEADER_NOT_TRAINED;
}
