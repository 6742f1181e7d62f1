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

// Four neighbours of a stored row, zero outside the matrix.
DEVICE float4 load4(const float* src, i64 ld, int row, int col, int rows, int cols, bool aligned) {
    float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (row >= rows || col >= cols) return x;
    const float* at = src + row * ld + col;
    if (aligned && col + 4 <= cols) return *(const float4*)at;
    x.x = at[0];
    if (col + 1 < cols) x.y = at[1];
    if (col + 2 < cols) x.z = at[2];
    if (col + 3 < cols) x.w = at[3];
    return x;
}

// One operand's part of an f32 kernel: a slice of DEPTH along k and TILE along its rows (columns of B), one float4 a thread,
// kept in shared memory as [DEPTH][TILE], so that the inner loop reads it by float4. The pad keeps the transposing
// stores of the k-major form at two lanes a bank.
template <bool K_MAJOR, int TILE, int DEPTH> struct Slice {
    static constexpr int PITCH = TILE + 4;
    static constexpr int ACROSS = (K_MAJOR ? DEPTH : TILE) / 4;

    static DEVICE float4 load(const float* src, i64 ld, int row0, int rows, int p0, int k, bool aligned) {
        int outer = threadIdx.x / ACROSS, inner = threadIdx.x % ACROSS * 4;
        return K_MAJOR ? load4(src, ld, row0 + outer, p0 + inner, rows, k, aligned)
                       : load4(src, ld, p0 + outer, row0 + inner, k, rows, aligned);
    }
    static DEVICE void store(float* dst, float4 x) {
        int outer = threadIdx.x / ACROSS, inner = threadIdx.x % ACROSS * 4;
        if (K_MAJOR) {
            dst[(inner + 0) * PITCH + outer] = x.x;
            dst[(inner + 1) * PITCH + outer] = x.y;
            dst[(inner + 2) * PITCH + outer] = x.z;
            dst[(inner + 3) * PITCH + outer] = x.w;
        } else {
            *(float4*)(dst + outer * PITCH + inner) = x;
        }
    }
};

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
