/* Addresses of the device and the memory behind them, apart: CUDA's virtual memory management, by
 * functions that the runtime finds in the driver. Sizes are whole multiples of vmm_step. What is
 * told to fail does so with a sentence; what cannot fail but by a lost device stops the process. */
#ifndef TROUPE_TENSOR_CUDA_VMM_CUH
#define TROUPE_TENSOR_CUDA_VMM_CUH

#include <stddef.h>

/* Finds the functions for the process's device; once, before all else. False with a sentence: the
 * device or its driver has none. Asked again it says the same. */
bool vmm_open(int device, char *text, size_t size);

/* Whether memory can also be shared between processes. After vmm_open was true. */
bool vmm_shares(char *text, size_t size);
void vmm_identify(unsigned char ret[16]);

size_t vmm_step(void);

/* Addresses with nothing behind them. */
void *vmm_reserve(size_t bytes);
void vmm_unreserve(void *memory, size_t bytes);

/* Puts memory of undefined contents behind them, or that of a descriptor (of another process, to be
 * read); *ret_fd (NULL: not wanted) becomes a descriptor for others. False: no room, or refused. */
bool vmm_back(void *memory, size_t bytes, int *ret_fd, char *text, size_t size);
bool vmm_back_with(void *memory, size_t bytes, int fd, char *text, size_t size);
/* Takes it away, when nothing runs that uses it. */
void vmm_unback(void *memory, size_t bytes);

#endif
