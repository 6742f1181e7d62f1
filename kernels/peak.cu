// What a device can do at all, to compare with: multiply-adds in registers, and a copy of memory.
#include "common.cuh"

// Independent chains a thread: as many as hide a multiply-add's latency, few enough for full occupancy.
constexpr int CHAINS = 8;

// Each chain is x = a x + b, `steps` times from 0; dst[thread of the grid] = their sum.
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
    dst[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

// dst[i] = src[i] for i < n.
KERNEL __launch_bounds__(256) copy_f32x4(i64 n, const float4* src, float4* dst) {
    i64 step = (i64)gridDim.x * blockDim.x;
    for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += step) dst[i] = src[i];
}
