#include "tensor/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

void reference_matmul(double *c, const double *a, const double *b, int m, int n, int k,
                      int a_turned, int b_turned)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int l = 0; l < k; l++)
                sum += (a_turned ? a[l * m + i] : a[i * k + l]) *
                       (b_turned ? b[j * k + l] : b[l * n + j]);
            c[i * n + j] = sum;
        }
}

static double rstd_of(const double *x, int n, double eps)
{
    double sum = 0;
    for (int j = 0; j < n; j++)
        sum += x[j] * x[j];
    return 1 / sqrt(sum / n + eps);
}

void reference_rmsnorm(double *y, double *rstd, const double *x, const double *w, int m, int n,
                       double eps)
{
    for (int i = 0; i < m; i++) {
        const double r = rstd_of(x + i * n, n, eps);
        if (rstd != NULL) rstd[i] = r;
        for (int j = 0; j < n; j++)
            y[i * n + j] = x[i * n + j] * r * w[j];
    }
}

/* d/dx_i of sum_j dy_j w_j x_j r, with dr/dx_i = -r^3 x_i / n. */
void reference_rmsnorm_backward(double *dx, double *dw, const double *dy, const double *x,
                                const double *w, int m, int n, double eps)
{
    for (int i = 0; i < m; i++) {
        const double r = rstd_of(x + i * n, n, eps);
        double dot = 0;
        for (int j = 0; j < n; j++)
            dot += dy[i * n + j] * w[j] * x[i * n + j];
        for (int j = 0; j < n; j++) {
            dx[i * n + j] = dy[i * n + j] * w[j] * r - r * r * r * x[i * n + j] / n * dot;
            dw[j] += dy[i * n + j] * x[i * n + j] * r;
        }
    }
}

static void head_rotate(double *y, const double *x, const float *cos_sin, int dim, double sign)
{
    const int half = dim / 2;
    for (int j = 0; j < half; j++) {
        const double c = cos_sin[j], s = sign * cos_sin[half + j], a = x[j], b = x[half + j];
        y[j] = a * c - b * s;
        y[half + j] = b * c + a * s;
    }
}

void reference_qk_norm_rope(double *y, const double *x, const ReferenceHeads *heads)
{
    const int dim = heads->head_dim, all = heads->num_heads + 2 * heads->num_kv_heads;
    memcpy(y, x, sizeof *y * (size_t)(heads->m * all * dim));
    double *normed = mem_calloc((size_t)dim, sizeof *normed);
    for (int i = 0; i < heads->m; i++)
        for (int h = 0; h < heads->num_heads + heads->num_kv_heads; h++) {
            const double *w = h < heads->num_heads ? heads->q_norm : heads->k_norm;
            const double *from = x + (i * all + h) * dim;
            memcpy(normed, from, sizeof *normed * (size_t)dim);
            if (w != NULL) reference_rmsnorm(normed, NULL, from, w, 1, dim, heads->eps);
            head_rotate(y + (i * all + h) * dim, normed, heads->cos_sin + heads->position[i] * dim,
                        dim, 1);
        }
    free(normed);
}

void reference_qk_norm_rope_backward(double *dx, double *dq_norm, double *dk_norm, const double *dy,
                                     const double *x, const ReferenceHeads *heads)
{
    const int dim = heads->head_dim, all = heads->num_heads + 2 * heads->num_kv_heads;
    memcpy(dx, dy, sizeof *dx * (size_t)(heads->m * all * dim));
    double *turned = mem_calloc((size_t)dim, sizeof *turned);
    for (int i = 0; i < heads->m; i++)
        for (int h = 0; h < heads->num_heads + heads->num_kv_heads; h++) {
            const int is_query = h < heads->num_heads, at = (i * all + h) * dim;
            const double *w = is_query ? heads->q_norm : heads->k_norm;
            head_rotate(turned, dy + at, heads->cos_sin + heads->position[i] * dim, dim, -1);
            memcpy(dx + at, turned, sizeof *dx * (size_t)dim);
            if (w != NULL)
                reference_rmsnorm_backward(dx + at, is_query ? dq_norm : dk_norm, turned, x + at, w,
                                           1, dim, heads->eps);
        }
    free(turned);
}

void reference_swiglu(double *y, const double *gate_up, int m, int n)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            const double g = gate_up[i * 2 * n + j], u = gate_up[i * 2 * n + n + j];
            y[i * n + j] = g / (1 + exp(-g)) * u;
        }
}

void reference_swiglu_backward(double *dgate_up, const double *dy, const double *gate_up, int m,
                               int n)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            const double g = gate_up[i * 2 * n + j], u = gate_up[i * 2 * n + n + j];
            const double s = 1 / (1 + exp(-g));
            dgate_up[i * 2 * n + j] = dy[i * n + j] * u * (s + g * s * (1 - s));
            dgate_up[i * 2 * n + n + j] = dy[i * n + j] * g * s;
        }
}

/* The probabilities p[0 .. i] of row `row`, which is row i of its sequence; returns the
 * log-sum-exp. */
static double attention_row(double *p, const double *q, const double *k, int row, int start,
                            int head, const ReferenceAttention *shape)
{
    const int dim = shape->head_dim, kv_head = head / (shape->num_heads / shape->num_kv_heads);
    double max = -INFINITY, sum = 0;
    for (int j = start; j <= row; j++) {
        double dot = 0;
        for (int d = 0; d < dim; d++)
            dot += q[(row * shape->num_heads + head) * dim + d] *
                   k[(j * shape->num_kv_heads + kv_head) * dim + d];
        p[j - start] = dot * shape->scale;
        max = fmax(max, p[j - start]);
    }
    for (int j = start; j <= row; j++)
        sum += exp(p[j - start] - max);
    for (int j = start; j <= row; j++)
        p[j - start] = exp(p[j - start] - max) / sum;
    return max + log(sum);
}

/* What to do with each row of each head. */
typedef void (*RowVisitor)(void *context, const double *p, double lse, int row, int start,
                           int head);

static void visit_rows(const double *q, const double *k, const ReferenceAttention *shape,
                       RowVisitor visit, void *context)
{
    const int rows = shape->cu_seqlens[shape->num_sequences];
    double *p = mem_calloc((size_t)rows + 1, sizeof *p);
    for (int s = 0; s < shape->num_sequences; s++)
        for (int row = shape->cu_seqlens[s]; row < shape->cu_seqlens[s + 1]; row++)
            for (int head = 0; head < shape->num_heads; head++) {
                const int start = shape->cu_seqlens[s];
                const double lse = attention_row(p, q, k, row, start, head, shape);
                visit(context, p, lse, row, start, head);
            }
    free(p);
}

typedef struct AttentionArrays {
    double *out, *lse, *dq, *dk, *dv;
    const double *dout, *q, *k, *v;
    const ReferenceAttention *shape;
} AttentionArrays;

static void forward_row(void *context, const double *p, double lse, int row, int start, int head)
{
    const AttentionArrays *a = context;
    const ReferenceAttention *s = a->shape;
    const int dim = s->head_dim, kv_head = head / (s->num_heads / s->num_kv_heads);
    double *out = a->out + (row * s->num_heads + head) * dim;
    memset(out, 0, sizeof *out * (size_t)dim);
    for (int j = start; j <= row; j++)
        for (int d = 0; d < dim; d++)
            out[d] += p[j - start] * a->v[(j * s->num_kv_heads + kv_head) * dim + d];
    if (a->lse != NULL) a->lse[head * s->cu_seqlens[s->num_sequences] + row] = lse;
}

void reference_attention(double *out, double *lse, const double *q, const double *k,
                         const double *v, const ReferenceAttention *shape)
{
    AttentionArrays arrays = {.out = out, .lse = lse, .v = v, .shape = shape};
    visit_rows(q, k, shape, forward_row, &arrays);
}

/* ds_j = p_j (dp_j - sum_k p_k dp_k) with dp_j = dout . v_j */
static void backward_row(void *context, const double *p, double lse, int row, int start, int head)
{
    (void)lse;
    const AttentionArrays *a = context;
    const ReferenceAttention *s = a->shape;
    const int dim = s->head_dim, kv_head = head / (s->num_heads / s->num_kv_heads);
    const int query_at = (row * s->num_heads + head) * dim;
    double *dp = mem_calloc((size_t)(row - start) + 1, sizeof *dp), mean = 0;
    for (int j = start; j <= row; j++) {
        const int at = (j * s->num_kv_heads + kv_head) * dim;
        for (int d = 0; d < dim; d++)
            dp[j - start] += a->dout[query_at + d] * a->v[at + d];
        mean += p[j - start] * dp[j - start];
    }
    for (int j = start; j <= row; j++) {
        const int at = (j * s->num_kv_heads + kv_head) * dim;
        const double ds = p[j - start] * (dp[j - start] - mean) * s->scale;
        for (int d = 0; d < dim; d++) {
            a->dv[at + d] += p[j - start] * a->dout[query_at + d];
            a->dk[at + d] += ds * a->q[query_at + d];
            a->dq[query_at + d] += ds * a->k[at + d];
        }
    }
    free(dp);
}

void reference_attention_backward(double *dq, double *dk, double *dv, const double *dout,
                                  const double *q, const double *k, const double *v,
                                  const ReferenceAttention *shape)
{
    const size_t rows = (size_t)shape->cu_seqlens[shape->num_sequences];
    const size_t dim = (size_t)shape->head_dim;
    memset(dq, 0, sizeof *dq * rows * dim * (size_t)shape->num_heads);
    memset(dk, 0, sizeof *dk * rows * dim * (size_t)shape->num_kv_heads);
    memset(dv, 0, sizeof *dv * rows * dim * (size_t)shape->num_kv_heads);
    AttentionArrays arrays = {
        .dq = dq, .dk = dk, .dv = dv, .dout = dout, .q = q, .k = k, .v = v, .shape = shape};
    visit_rows(q, k, shape, backward_row, &arrays);
}
