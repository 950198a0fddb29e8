/* libtroupe_cuda with another choice of products than the default, or without memory that processes
 * share, from its loading on: programs know of none, so that a whole one can be measured with each.
 */
#include "tensor/cuda/gemm_choice.h"
#include "tensor/cuda/table.h"

__attribute__((constructor)) static void choose(void)
{
#if defined(CHOICE_FIXED)
    gemm_choose(GEMM_LIBRARY_FIXED);
#elif defined(CHOICE_FREE)
    gemm_choose(GEMM_LIBRARY_FREE);
#elif defined(CHOICE_TILE)
    gemm_choose(GEMM_TILE);
#elif defined(CHOICE_HOST)
    cuda_share_nothing(true);
#endif
}
