/* The shapes of published models, for benchmarks and jobs with random weights: what their
 * config.json says of sizes. Qwen2.5 adds a bias to its queries, keys and values, which this build
 * does not know: its shapes here go without (less than a thousandth of a layer's work). */
#ifndef TROUPE_TESTS_SHAPES_H
#define TROUPE_TESTS_SHAPES_H

#include "model/model_config.h"

/* False when no shape has this name. `layers` above 0 cuts it to so many. */
bool shape_find(const char *name, int layers, ModelConfig *ret);

/* "toy, qwen3-0.6b, ...". */
const char *shape_names(void);

/* A config.json of it, for this project and for transformers. Owned by the caller. */
char *shape_json(const ModelConfig *config);

#endif
