// ReLU, and its derivative for gradients and tangents alike: the derivative at 0 is 0.
#include "common.cuh"

// dst[i] = max(src[i], 0); in place where dst is src.
KERNEL relu(i64 n, const float* src, float* dst) {
    for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) {
        float x = src[i];
        dst[i] = x > 0 ? x : 0;
    }
}

// d[i] = 0 where a[i] <= 0, a being the ReLU's output.
KERNEL relu_mask(i64 n, const float* a, float* d) {
    for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) {
        if (!(a[i] > 0)) d[i] = 0;
    }
}
