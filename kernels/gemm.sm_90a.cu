// Large matrix products of 16-bit operands by Hopper's warpgroups (9.7.15, wgmma): an instruction multiplies 64 x 16 by
// 16 x 128 out of shared memory, so no operand passes through registers. Formulas, parameters and forms are those of gemm.cu;
// operands have to be aligned.
//
// A block of two warpgroups owns 128 x 128 of c, 64 x 128 each: 64 accumulators a thread. A slice is 64 deep, 32 KB for both
// operands; three are in flight, so two blocks share a multiprocessor and one computes while the other waits. In iteration t
// the copies of slice t + 2 go where slice t - 1 was, whose products all warpgroups have waited for before the barrier.
//
// Copies are writes by the generic proxy, wgmma reads by the asynchronous one: each thread's copies have landed, then its
// fence.proxy.async, then the barrier, then anyone's wgmma (the order that 9.7.15.5 and the memory model's 8.8 ask for).
#include "gemm.cuh"
#include "wgmma.cuh"

constexpr int TILE = 128, DEPTH = 64, STAGES = 3, THREADS = 256;
// Bytes of an operand's slice.
constexpr u32 SLICE = TILE * DEPTH * 2;

// One operand's slice in the canonical layout of 128-byte swizzling (9.7.15.5.1.2): lines of 128 bytes, in each of which the
// 16-byte chunk c lies at place c ^ (line % 8).
// K_MAJOR: a line is a row's 64 numbers along k. Else a line is 64 neighbouring rows at one k; the tile's second 64 rows
// follow behind the first ones' 64 lines.
template <bool K_MAJOR> struct Swizzled {
    static constexpr int INNER = K_MAJOR ? DEPTH : TILE, ACROSS = INNER / 8;

    // Begins the slice's copies; what lies outside the matrix is zero.
    static DEVICE void copy(u32 dst, const u16* src, i64 ld, int row0, int rows, int p0, int k) {
        #pragma unroll
        for (int i = threadIdx.x; i < TILE * DEPTH / 8; i += THREADS) {
            int line = i / ACROSS, chunk = i % ACROSS;
            int outer = line + (K_MAJOR ? row0 : p0), inner = chunk * 8 + (K_MAJOR ? p0 : row0);
            int outers = K_MAJOR ? rows : k, inners = K_MAJOR ? k : rows;
            int valid = outer < outers ? larger(0, smaller(8, inners - inner)) : 0;
            u32 place = (chunk / 8 * DEPTH + line) * 128 + (chunk % 8 ^ line % 8) * 16;
            copy16(dst + place, valid ? src + outer * ld + inner : src, valid * 2);
        }
    }

    // The descriptor of the numbers at p .. p + 15 of all rows from `row`, a multiple of 64, on. The leading offset, from 64 rows
    // to the next 64, counts in the row-major form alone.
    static DEVICE u64 descriptor(u32 slice, int row, int p) {
        u32 at = slice + (K_MAJOR ? row * 128 + p * 2 : row / 64 * (DEPTH * 128) + p * 128);
        return swizzled(at, K_MAJOR ? 16 : DEPTH * 128);
    }
};

// KA, KB: the operand is k-major.
struct Bf16 {
    template <bool KA, bool KB> static DEVICE void multiply(float (&d)[64], u64 a, u64 b) {
        WGMMA("m64n128k16.f32.bf16.bf16", ", %66, %67", "l"(a), "l"(b), "n"(!KA), "n"(!KB));
    }
};
struct F16 {
    template <bool KA, bool KB> static DEVICE void multiply(float (&d)[64], u64 a, u64 b) {
        WGMMA("m64n128k16.f32.f16.f16", ", %66, %67", "l"(a), "l"(b), "n"(!KA), "n"(!KB));
    }
};

template <class Kind, bool KA, bool KB>
DEVICE void wgmma_gemm(int m, int n, int k, float alpha, const u16* a, int lda, const u16* b, int ldb, float beta, float* c,
                       int ldc, const float* bias, u32 flags) {
    using A = Swizzled<KA>;
    using B = Swizzled<KB>;
    extern __shared__ unsigned char shared[];
    u32 slices = (shared_address(shared) + PATTERN - 1) / PATTERN * PATTERN;
    int i0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE, count = (k + DEPTH - 1) / DEPTH;
    auto begin = [&](int t) {
        if (t < count) {
            u32 slice = slices + t % STAGES * (2 * SLICE);
            A::copy(slice, a, lda, i0, m, t * DEPTH, k);
            B::copy(slice + SLICE, b, ldb, j0, n, t * DEPTH, k);
        }
        commit_copies();
    };
    #pragma unroll
    for (int t = 0; t < STAGES - 1; t++) begin(t);
    int warpgroup = threadIdx.x / 128;
    float sum[64] = {};
    for (int t = 0; t < count; t++) {
        wait_copies<STAGES - 2>();
        fence_async_proxy();
        __syncthreads();
        u32 slice = slices + t % STAGES * (2 * SLICE);
        warpgroup_fence();
        #pragma unroll
        for (int p = 0; p < DEPTH; p += 16)
            Kind::template multiply<KA, KB>(sum, A::descriptor(slice, 64 * warpgroup, p), B::descriptor(slice + SLICE, 0, p));
        commit_products();
        begin(t + STAGES - 1);
        wait_products<0>();
    }
    wait_copies<0>();
    int i = i0 + 64 * warpgroup + warp_id() % 4 * 16 + lane_id() / 4, j = j0 + lane_id() % 4 * 2;
    #pragma unroll
    for (int x = 0; x < 64; x += 2)
        finish2(sum[x], sum[x + 1], i + x / 2 % 2 * 8, j + x / 4 * 8, m, n, alpha, beta, c, ldc, bias, flags);
}

#define WARPGROUP(KIND, NAME)                                                        \
    GEMM(NAME##_gemm_nn_wgmma, u16, (THREADS, 2), wgmma_gemm<KIND, true, false>)       \
    GEMM(NAME##_gemm_nt_wgmma, u16, (THREADS, 2), wgmma_gemm<KIND, true, true>)        \
    GEMM(NAME##_gemm_tn_wgmma, u16, (THREADS, 2), wgmma_gemm<KIND, false, false>)
WARPGROUP(Bf16, bf16)
WARPGROUP(F16, f16)
