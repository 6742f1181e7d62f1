// Scaled additions and column sums; among them the mean of the episodes' gradients.
#include "common.cuh"

// y[i] = alpha x[i] + beta y[i]; beta = 0 does not read y.
KERNEL axpby(i64 n, float alpha, const float* x, float beta, float* y) {
    for (i64 i = first_of_grid(); i < n; i += step_of_grid()) {
        float scaled = alpha * x[i];
        y[i] = beta == 0 ? scaled : fmaf(beta, y[i], scaled);
    }
}

// dst[j] = alpha (src[0][j] + src[1][j] + ..) + beta dst[j], rows in order, `ld` numbers apart; beta = 0 does not read dst. A
// thread a column: neighbours read neighbours, and the order of a sum does not depend on the grid.
DEVICE void column_sums(int m, i64 n, float alpha, const float* src, i64 ld, float beta, float* dst) {
    for (i64 j = first_of_grid(); j < n; j += step_of_grid()) {
        float sum = 0;
        for (int i = 0; i < m; i++) sum += src[i * ld + j];
        dst[j] = beta == 0 ? alpha * sum : fmaf(beta, dst[j], alpha * sum);
    }
}
KERNEL col_sum(int m, i64 n, float alpha, const float* src, i64 ld, float beta, float* dst) {
    column_sums(m, n, alpha, src, ld, beta, dst);
}

// The same of rows without gaps, to a place that holds nothing.
KERNEL sum_rows(int m, i64 n, float alpha, const float* src, float* dst) { column_sums(m, n, alpha, src, n, 0.0f, dst); }
