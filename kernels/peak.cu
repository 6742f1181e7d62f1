// What a device can do at all, to compare with: multiply-adds in registers, by each unit, and a copy of memory.
//
// All chains have the same parameters: a and b are what is multiplied, dst has a number for each thread of the grid. Numbers
// that never change take less power than a product's, so clocks are those of a card that is not held back by it.
#include "common.cuh"

// Independent chains a thread or warp: as many as hide a multiply-add's latency, few enough for many warps.
constexpr int CHAINS = 8;

// Each chain is x = a x + b, `steps` times from 0; dst = their sum.
KERNEL __launch_bounds__(256) fma_chains(int steps, float a, float b, float* dst) {
    float x[CHAINS];
    #pragma unroll
    for (int i = 0; i < CHAINS; i++) x[i] = 0;
    for (int s = 0; s < steps; s++) {
        #pragma unroll
        for (int i = 0; i < CHAINS; i++) x[i] = fmaf(x[i], a, b);
    }
    float sum = 0;
    #pragma unroll
    for (int i = 0; i < CHAINS; i++) sum += x[i];
    dst[first_of_grid()] = sum;
}

// Each chain is a warp's d += A B on tensor cores, `steps` times from 0, A a everywhere and B b; dst = the sum of the lane's
// numbers of all chains: 4 CHAINS sums over k = 16 (bf16; f16 has the same rate) or 8 (tf32) of a b a step. a and b are numbers
// that these types hold.
#define MMA_CHAINS(NAME, SHAPE_AND_TYPES, BITS)                                    \
    KERNEL __launch_bounds__(256) NAME(int steps, float a, float b, float* dst) {  \
        u32 x = BITS(a), y = BITS(b), fragment[4] = {x, x, x, x};                  \
        float d[CHAINS][4] = {};                                                   \
        for (int s = 0; s < steps; s++) {                                          \
            _Pragma("unroll")                                                      \
            for (int i = 0; i < CHAINS; i++) MMA(SHAPE_AND_TYPES, d[i], fragment, y, y); \
        }                                                                          \
        float sum = 0;                                                             \
        _Pragma("unroll")                                                          \
        for (int i = 0; i < 4 * CHAINS; i++) sum += d[i / 4][i % 4];               \
        dst[first_of_grid()] = sum;                                                \
    }
MMA_CHAINS(bf16_mma_chains, "m16n8k16.row.col.f32.bf16.bf16.f32", bf16_pair)
MMA_CHAINS(tf32_mma_chains, "m16n8k8.row.col.f32.tf32.tf32.f32", __float_as_uint)

// dst[i] = src[i] for i < n.
KERNEL __launch_bounds__(256) copy_f32x4(i64 n, const float4* src, float4* dst) {
    i64 step = step_of_grid();
    for (i64 i = first_of_grid(); i < n; i += step) dst[i] = src[i];
}
