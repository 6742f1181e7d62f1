// Scaled additions and column sums; among them the mean of the episodes' gradients.
#include "common.cuh"

// y[i] = alpha x[i] + beta y[i]; beta = 0 does not read y.
KERNEL axpby(i64 n, float alpha, const float* x, float beta, float* y) {
    for (i64 i = first_of_grid(); i < n; i += step_of_grid()) {
        float scaled = alpha * x[i];
        y[i] = beta == 0 ? scaled : fmaf(beta, y[i], scaled);
    }
}

// The sum of m numbers that lie `ld` apart, in order; loads are begun eight at a time.
DEVICE float column_sum(int m, const float* src, i64 ld) {
    float sum = 0;
    #pragma unroll 8
    for (int i = 0; i < m; i++) sum += src[i * ld];
    return sum;
}

// dst[j] = alpha (src[0][j] + src[1][j] + ..) + beta dst[j], rows in order, `ld` numbers apart; beta = 0 does not read dst. A
// thread a column: neighbours read neighbours, and the order of a sum does not depend on the grid.
KERNEL col_sum(int m, i64 n, float alpha, const float* src, i64 ld, float beta, float* dst) {
    for (i64 j = first_of_grid(); j < n; j += step_of_grid()) {
        float sum = alpha * column_sum(m, src + j, ld);
        dst[j] = beta == 0 ? sum : fmaf(beta, dst[j], sum);
    }
}

// The same of rows without gaps, `group` of them at a time: group g, the grid's y, to row g of dst, which holds nothing.
KERNEL sum_rows(int m, i64 n, int group, float alpha, const float* src, float* dst) {
    int first = blockIdx.y * group, rows = smaller(group, m - first);
    for (i64 j = first_of_grid(); j < n; j += step_of_grid()) {
        dst[blockIdx.y * n + j] = alpha * column_sum(rows, src + first * n + j, n);
    }
}
