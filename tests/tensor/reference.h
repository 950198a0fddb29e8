/* The operations of tensor/kernels.h in float64, each as the plain loop of its formula: what the
 * kernels are tested against. The backward passes here are themselves tested against finite
 * differences of the forward ones. Everything row-major; M rows. */
#ifndef TROUPE_TESTS_TENSOR_REFERENCE_H
#define TROUPE_TESTS_TENSOR_REFERENCE_H

#include <stdint.h>

/* c[m, n] = a[m, k] b[k, n]; the flags say that a is given as [k, m], b as [n, k]. */
void reference_matmul(double *c, const double *a, const double *b, int m, int n, int k,
                      int a_turned, int b_turned);

void reference_rmsnorm(double *y, double *rstd, const double *x, const double *w, int m, int n,
                       double eps);
void reference_rmsnorm_backward(double *dx, double *dw, const double *dy, const double *x,
                                const double *w, int m, int n, double eps);

typedef struct ReferenceHeads {
    int m, num_heads, num_kv_heads, head_dim;
    const double *q_norm, *k_norm; /* NULL: no norm */
    double eps;
    const float *cos_sin;
    const int32_t *position;
} ReferenceHeads;

/* y and x: [m, (num_heads + 2 num_kv_heads) head_dim]. */
void reference_qk_norm_rope(double *y, const double *x, const ReferenceHeads *heads);
void reference_qk_norm_rope_backward(double *dx, double *dq_norm, double *dk_norm, const double *dy,
                                     const double *x, const ReferenceHeads *heads);

void reference_swiglu(double *y, const double *gate_up, int m, int n);
void reference_swiglu_backward(double *dgate_up, const double *dy, const double *gate_up, int m,
                               int n);

typedef struct ReferenceAttention {
    int num_heads, num_kv_heads, head_dim, num_sequences;
    const int32_t *cu_seqlens;
    double scale;
} ReferenceAttention;

/* q [m, num_heads D], k and v [m, num_kv_heads D]; lse [num_heads, m]. */
void reference_attention(double *out, double *lse, const double *q, const double *k,
                         const double *v, const ReferenceAttention *shape);
void reference_attention_backward(double *dq, double *dk, double *dv, const double *dout,
                                  const double *q, const double *k, const double *v,
                                  const ReferenceAttention *shape);

#endif
