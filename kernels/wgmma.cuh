// Hopper's warpgroup products (9.7.15), for files that are compiled for sm_90a alone.
#pragma once
#include "common.cuh"

// Bytes of the pattern of 128-byte swizzling, to which operands are aligned: eight lines of 128 bytes.
constexpr u32 PATTERN = 1024;

DEVICE void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void warpgroup_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> DEVICE void wait_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

// The descriptor (9.7.15.5.1.2.2) of an operand with 128-byte swizzling that begins at `at`; `leading` in bytes, the stride is
// eight lines.
DEVICE u64 swizzled(u32 at, u32 leading) {
    return (u64)(at / 16 & 0x3fff) | (u64)(leading / 16) << 16 | (u64)(PATTERN / 16) << 32 | (u64)1 << 62;
}

// d += A B for 64 x 128 accumulators `d` of a warpgroup. Warp w has rows 16 w .. 16 w + 15; lane 4 g + t has, in d[4 j ..],
// columns 8 j + 2 t, 8 j + 2 t + 1 of row g, then of row g + 8. MORE is what follows the scales; then come all inputs, the
// descriptors of A and B first.
#define FOUR(D, I) "+f"(D[I]), "+f"(D[I + 1]), "+f"(D[I + 2]), "+f"(D[I + 3])
#define SIXTEEN(D, I) FOUR(D, I), FOUR(D, I + 4), FOUR(D, I + 8), FOUR(D, I + 12)
#define WGMMA(SHAPE_AND_TYPES, MORE, ...)                                                                                 \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"                                                               \
                 "wgmma.mma_async.sync.aligned." SHAPE_AND_TYPES " "                                                      \
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                       \
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                       \
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "                      \
                 "%64, %65, p, 1, 1" MORE ";\n}\n"                                                                        \
                 : SIXTEEN(d, 0), SIXTEEN(d, 16), SIXTEEN(d, 32), SIXTEEN(d, 48)                                          \
                 : __VA_ARGS__                                                                                            \
                 : "memory")
