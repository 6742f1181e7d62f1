// What all matrix products share: their parameters, and what is done with finished sums (formulas: gemm.cu).
#pragma once
#include "common.cuh"

// Bits of `flags`; "aligned" is: pointer, leading dimension and batch stride are multiples of 16 bytes (c: of 8).
constexpr u32 RELU = 1, ALIGNED_A = 2, ALIGNED_B = 4, ALIGNED_C = 8;

// Two neighbours of a row of c, the second only where it exists.
DEVICE void finish2(float x, float y, int i, int j, int m, int n, float alpha, float beta, float* c, int ldc,
                    const float* bias, u32 flags) {
    if (i >= m || j >= n) return;
    float* at = c + (i64)i * ldc + j;
    bool both = j + 1 < n;
    x *= alpha;
    y *= alpha;
    if (beta != 0.0f) {
        x += beta * at[0];
        if (both) y += beta * at[1];
    }
    if (bias) {
        x += bias[j];
        if (both) y += bias[j + 1];
    }
    if (flags & RELU) {
        x = fmaxf(x, 0.0f);
        y = fmaxf(y, 0.0f);
    }
    if (both && (flags & ALIGNED_C)) {
        *(float2*)at = make_float2(x, y);
    } else {
        at[0] = x;
        if (both) at[1] = y;
    }
}

// One kernel, with its launch bounds in parentheses: finds the entry of the batch it works on. The function takes the
// parameters of that.
#define GEMM(NAME, T, BOUNDS, ...)                                                                                       \
    KERNEL __launch_bounds__ BOUNDS NAME(int m, int n, int k, float alpha, const T* a, int lda, i64 stride_a,            \
                                         const T* b, int ldb, i64 stride_b, float beta, float* c, int ldc, i64 stride_c, \
                                         const float* bias, u32 flags) {                                                 \
        i64 z = blockIdx.z;                                                                                              \
        __VA_ARGS__(m, n, k, alpha, a + z * stride_a, lda, b + z * stride_b, ldb, beta, c + z * stride_c, ldc, bias,     \
                    flags);                                                                                              \
    }
