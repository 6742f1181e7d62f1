// What all kernels share: no CUDA header is included anywhere, so NVRTC alone compiles them. Numbers of 16 bits are
// `unsigned short`; instructions the language has no name for are inline PTX (sections named are the PTX ISA's).
#pragma once

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE __device__ __forceinline__
// Names stay as written, so the host finds a kernel by them.
#define KERNEL extern "C" __global__ void

constexpr u32 WARP = 32;
constexpr u32 FULL = 0xffffffffu;

DEVICE u32 lane_id() { return threadIdx.x % WARP; }
DEVICE u32 warp_id() { return threadIdx.x / WARP; }
// A thread's first element of a grid of one dimension, and the way to its next.
DEVICE i64 first_of_grid() { return blockIdx.x * (i64)blockDim.x + threadIdx.x; }
DEVICE i64 step_of_grid() { return (i64)gridDim.x * blockDim.x; }
template <class T> DEVICE T smaller(T a, T b) { return a < b ? a : b; }
template <class T> DEVICE T larger(T a, T b) { return a > b ? a : b; }

// The 32-bit address of shared memory that the instructions below take.
DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// Sum and maximum over LANES neighbouring lanes (a power of 2; all lanes of the warp take part), the same bits in each: halves are
// exchanged, so both partners add the same two numbers, and addition commutes.
template <int LANES> DEVICE float lanes_sum(float x) {
    #pragma unroll
    for (int d = LANES / 2; d > 0; d /= 2) x += __shfl_xor_sync(FULL, x, d);
    return x;
}
template <int LANES> DEVICE float lanes_max(float x) {
    #pragma unroll
    for (int d = LANES / 2; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(FULL, x, d));
    return x;
}
DEVICE float warp_sum(float x) { return lanes_sum<WARP>(x); }

// bf16 and f16 as bits.
DEVICE float bf16_to_f32(u16 x) { return __uint_as_float((u32)x << 16); }
DEVICE u16 f32_to_bf16(float x) {
    u16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
// One number twice, as a register of a tensor core's operand has two.
DEVICE u32 bf16_pair(float x) { return f32_to_bf16(x) * 0x10001u; }
DEVICE float f16_to_f32(u16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}
DEVICE u16 f32_to_f16(float x) {
    u16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}

// 16 bytes from global to shared memory without registers between (9.7.9.25.3, cp.async); of them `valid` are read and the
// rest is zero. Both addresses are multiples of 16. They have landed, for this thread, after `wait_copies<N>` with at
// most N commits after theirs; for other threads after a barrier behind that.
DEVICE void copy16(u32 dst, const void* src, u32 valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(valid) : "memory");
}
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEVICE void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// d += A B by a warp's tensor cores (9.7.14.5): 16 x 8 numbers of d, four a lane; `a` are the registers of A.
#define MMA(SHAPE_AND_TYPES, d, a, b0, b1)                                                                                \
    asm volatile("mma.sync.aligned." SHAPE_AND_TYPES " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"             \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                         \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
