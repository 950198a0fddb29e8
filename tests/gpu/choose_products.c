/* libtroupe_cuda with another choice of products than the default, from its loading on: programs
 * know of none, so that a whole one can be measured with each. */
#include "tensor/cuda/gemm_choice.h"

#if defined(CHOICE_FIXED)
#define CHOICE GEMM_LIBRARY_FIXED
#elif defined(CHOICE_FREE)
#define CHOICE GEMM_LIBRARY_FREE
#elif defined(CHOICE_TILE)
#define CHOICE GEMM_TILE
#endif

__attribute__((constructor)) static void choose(void)
{
    gemm_choose(CHOICE);
}
