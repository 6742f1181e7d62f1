// What Hopper's warpgroups can do at all: products out of shared memory, as in gemm.sm_90a.cu (parameters: peak.cu).
#include "wgmma.cuh"

// A block of two warpgroups; each adds its own 64 x 128 numbers, in a step over four times the depth of an instruction, 128
// bytes a row. Two blocks share a multiprocessor: one multiplies while the other waits.
constexpr int THREADS = 256, INSTRUCTIONS = 4, LINE = 32;

struct Bf16 {
    static DEVICE u32 bits(float x) { return bf16_pair(x); }
    static DEVICE void multiply(float (&d)[64], u64 a, u64 b) {
        WGMMA("m64n128k16.f32.bf16.bf16", ", 0, 0", "l"(a), "l"(b));
    }
};
struct Tf32 {
    static DEVICE u32 bits(float x) { return __float_as_uint(x); }
    static DEVICE void multiply(float (&d)[64], u64 a, u64 b) { WGMMA("m64n128k8.f32.tf32.tf32", "", "l"(a), "l"(b)); }
};

// d += A B, `steps` times from 0, A a everywhere and B b; dst = the sum of the thread's 64 numbers: 64 sums over k = 64 (bf16)
// or 32 (tf32) of a b a step.
template <class Kind> DEVICE void wgmma_chains(int steps, float a, float b, float* dst) {
    __shared__ __align__(PATTERN) u32 left[64 * LINE], right[128 * LINE];
    for (int i = threadIdx.x; i < 64 * LINE; i += THREADS) left[i] = Kind::bits(a);
    for (int i = threadIdx.x; i < 128 * LINE; i += THREADS) right[i] = Kind::bits(b);
    fence_async_proxy();
    __syncthreads();
    u32 from = shared_address(left), with = shared_address(right);
    float d[64] = {};
    for (int s = 0; s < steps; s++) {
        warpgroup_fence();
        #pragma unroll
        for (int p = 0; p < INSTRUCTIONS; p++)
            Kind::multiply(d, swizzled(from + 32 * p, 16), swizzled(with + 32 * p, 16));
        commit_products();
        wait_products<0>();
    }
    float sum = 0;
    #pragma unroll
    for (int i = 0; i < 64; i++) sum += d[i];
    dst[first_of_grid()] = sum;
}

KERNEL __launch_bounds__(THREADS, 2) bf16_wgmma_chains(int steps, float a, float b, float* dst) {
    wgmma_chains<Bf16>(steps, a, b, dst);
}
KERNEL __launch_bounds__(THREADS, 2) tf32_wgmma_chains(int steps, float a, float b, float* dst) {
    wgmma_chains<Tf32>(steps, a, b, dst);
}
