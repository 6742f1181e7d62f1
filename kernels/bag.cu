// Token bags: the first layer's forward pass, and the embedding gradient over entries sorted by token. Both are one
// gather-and-sum, dst[r] = init + sum over entries e of r of weight[e] * table[index[e]], entries in order, one chain of
// multiply-adds an element: no atomics, so the bits depend on the entries alone. A block takes a row, threads its columns.
#include "common.cuh"

// A table's element as stored.
DEVICE float load(const float* p, i64 i) { return p[i]; }
struct Bf16 { u16 bits; };
struct F16 { u16 bits; };
DEVICE float load(const Bf16* p, i64 i) { return bf16_to_f32(p[i].bits); }
DEVICE float load(const F16* p, i64 i) { return f16_to_f32(p[i].bits); }

template <class T>
DEVICE void gather_sum(const int* offsets, const u32* index, const float* weights, const T* table, int width,
                       const float* init, float* dst) {
    int r = blockIdx.x, from = offsets[r], to = offsets[r + 1];
    for (int h = threadIdx.x; h < width; h += blockDim.x) {
        float sum = init ? init[h] : 0;
        for (int e = from; e < to; e++) sum = fmaf(weights[e], load(table, (i64)index[e] * width + h), sum);
        dst[(i64)r * width + h] = sum;
    }
}

// Z = bias + sum of weights * embedding rows, by bags; the table in f32, bf16 or f16.
KERNEL bag_f32(const int* offsets, const u32* tokens, const float* weights, const float* table, int width,
               const float* bias, float* dst) {
    gather_sum(offsets, tokens, weights, table, width, bias, dst);
}
KERNEL bag_bf16(const int* offsets, const u32* tokens, const float* weights, const Bf16* table, int width,
                const float* bias, float* dst) {
    gather_sum(offsets, tokens, weights, table, width, bias, dst);
}
KERNEL bag_f16(const int* offsets, const u32* tokens, const float* weights, const F16* table, int width,
               const float* bias, float* dst) {
    gather_sum(offsets, tokens, weights, table, width, bias, dst);
}
