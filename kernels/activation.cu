// ReLU, and its derivative for gradients and tangents alike: the derivative at 0 is 0.
#include "common.cuh"

// dst[i] = max(src[i], 0); in place where dst is src.
KERNEL relu(i64 n, const float* src, float* dst) {
    for (i64 i = first_of_grid(); i < n; i += step_of_grid()) {
        float x = src[i];
        dst[i] = x > 0 ? x : 0;
    }
}

// dst[i] = d[i] where a[i] > 0, else 0; a is the ReLU's output. In place where dst is d.
KERNEL relu_mask(i64 n, const float* a, const float* d, float* dst) {
    for (i64 i = first_of_grid(); i < n; i += step_of_grid()) dst[i] = a[i] > 0 ? d[i] : 0;
}
