// Matrix products, one batch entry for each z of the grid:
//
//     c[i][j] = relu?( alpha * sum over p < k of A[i][p] * B[p][j] + beta * c[i][j] + bias[j] )
//
// nn: A is m x k, B is k x n; nt: B is stored n x k; tn: A is stored k x m. Row-major, leading dimensions in elements. beta = 0
// does not read c; a null bias is none. Accumulators are f32. A block owns its tile of c and runs over all of k in one
// order: no split, no atomics, so the bits of an element depend on its row of A and column of B alone.
//
// f32_gemm_*     FFMA, one register tile a thread.
// tf32x3_gemm_*  tensor cores near f32's precision: x = hi + lo in tf32 each, x y = hi hi + hi lo + lo hi. Finite numbers only.
// bf16_, f16_    tensor cores on 16-bit operands. gemm.sm_90a.cu has those for Hopper's own instructions.
#include "gemm.cuh"

// 256 threads as 16 x 16; each has MICRO x MICRO elements in groups of four, 64 apart, so a warp's float4 reads of A are two
// broadcasts and those of B are consecutive. MICRO = 8: 64 accumulators, 64 FMAs for 4 shared loads of 16 bytes. Two slices:
// one is computed on while the next one's loads are in flight in registers.
template <bool KA, bool KB, int MICRO>
DEVICE void f32_gemm(int m, int n, int k, float alpha, const float* a, int lda, const float* b, int ldb, float beta, float* c,
                     int ldc, const float* bias, u32 flags) {
    constexpr int TILE = 16 * MICRO, DEPTH = 1024 / TILE, GROUPS = MICRO / 4;
    using A = Slice<KA, TILE, DEPTH>;
    using B = Slice<KB, TILE, DEPTH>;
    __shared__ __align__(16) float sa[2][DEPTH * A::PITCH];
    __shared__ __align__(16) float sb[2][DEPTH * B::PITCH];
    int i0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE;
    int ti = threadIdx.x / 16 * 4, tj = threadIdx.x % 16 * 4;
    bool aligned_a = flags & ALIGNED_A, aligned_b = flags & ALIGNED_B;
    float sum[MICRO][MICRO] = {};
    A::store(sa[0], A::load(a, lda, i0, m, 0, k, aligned_a));
    B::store(sb[0], B::load(b, ldb, j0, n, 0, k, aligned_b));
    __syncthreads();
    for (int p0 = 0, slot = 0; p0 < k; p0 += DEPTH, slot ^= 1) {
        float4 next_a = A::load(a, lda, i0, m, p0 + DEPTH, k, aligned_a);
        float4 next_b = B::load(b, ldb, j0, n, p0 + DEPTH, k, aligned_b);
        #pragma unroll
        for (int p = 0; p < DEPTH; p++) {
            float x[MICRO], y[MICRO];
            #pragma unroll
            for (int g = 0; g < GROUPS; g++) {
                *(float4*)(x + 4 * g) = *(const float4*)(sa[slot] + p * A::PITCH + 64 * g + ti);
                *(float4*)(y + 4 * g) = *(const float4*)(sb[slot] + p * B::PITCH + 64 * g + tj);
            }
            #pragma unroll
            for (int i = 0; i < MICRO; i++)
                #pragma unroll
                for (int j = 0; j < MICRO; j++) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
        }
        A::store(sa[slot ^ 1], next_a);
        B::store(sb[slot ^ 1], next_b);
        __syncthreads();
    }
    #pragma unroll
    for (int i = 0; i < MICRO; i++)
        #pragma unroll
        for (int j = 0; j < MICRO; j += 2)
            finish2(sum[i][j], sum[i][j + 1], i0 + i / 4 * 64 + ti + i % 4, j0 + j / 4 * 64 + tj + j % 4, m, n, alpha, beta, c,
                    ldc, bias, flags);
}

// Tensor cores. Operands lie in shared memory as they are stored: [rows][DEPTH] (k-major) or [DEPTH][rows]. STAGES slices are
// in flight: the copies of slice t + STAGES - 1 are issued before slice t is computed on.
constexpr int STAGES = 3;

// One operand's slice: its pitch puts the eight rows of an ldmatrix (and the fragment's scalar loads of tf32) on different
// banks: 80 bytes, 16 bytes mod 128, and for tf32 20 or 8 words mod 32.
template <class T, bool K_MAJOR, int ROWS, int DEPTH> struct Staged {
    static constexpr int CHUNK = 16 / sizeof(T);
    static constexpr int INNER = K_MAJOR ? DEPTH : ROWS, OUTER = K_MAJOR ? ROWS : DEPTH;
    static constexpr int PITCH = INNER + (K_MAJOR || sizeof(T) == 2 ? CHUNK : 2 * CHUNK);
    static constexpr int SIZE = PITCH * OUTER;

    // Begins the slice's copies; what lies outside the matrix is zero. Rows that are not aligned go through registers.
    template <int THREADS>
    static DEVICE void copy(T* dst, const T* src, i64 ld, int row0, int rows, int p0, int k, bool aligned) {
        if (aligned) {
            #pragma unroll
            for (int i = threadIdx.x; i < OUTER * INNER / CHUNK; i += THREADS) {
                int valid;
                const T* at = chunk(i, src, ld, row0, rows, p0, k, valid);
                copy16(shared_address(place(dst, i)), at, valid * sizeof(T));
            }
        } else {
            #pragma unroll 1
            for (int i = threadIdx.x; i < OUTER * INNER / CHUNK; i += THREADS) {
                int valid;
                const T* at = chunk(i, src, ld, row0, rows, p0, k, valid);
                T* to = place(dst, i);
                #pragma unroll 1
                for (int e = 0; e < CHUNK; e++) to[e] = e < valid ? at[e] : (T)0;
            }
        }
    }

    // Chunk i of the slice: where it goes, where it comes from, and how many of its numbers lie in the matrix.
    static DEVICE T* place(T* dst, int i) { return dst + i / (INNER / CHUNK) * PITCH + i % (INNER / CHUNK) * CHUNK; }
    static DEVICE const T* chunk(int i, const T* src, i64 ld, int row0, int rows, int p0, int k, int& valid) {
        int row = i / (INNER / CHUNK) + (K_MAJOR ? row0 : p0), col = i % (INNER / CHUNK) * CHUNK + (K_MAJOR ? p0 : row0);
        int outers = K_MAJOR ? rows : k, inners = K_MAJOR ? k : rows;
        valid = row < outers ? larger(0, smaller(CHUNK, inners - col)) : 0;
        return valid ? src + row * ld + col : src;
    }
};

// Four 8x8 matrices of 16-bit numbers (9.7.14.5.15): lanes 8q..8q+7 name the rows of matrix q.
template <bool TRANS> DEVICE void ldmatrix4(u32 (&r)[4], u32 address) {
    if (TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// Types of operands: how a warp multiplies its (16 MI) x (8 NI) part of a slice that begins at rows `i` of A, `j` of B.
struct Bf16 { using T = u16; static constexpr int DEPTH = 32; };
struct F16 { using T = u16; static constexpr int DEPTH = 32; };
struct Tf32x3 { using T = float; static constexpr int DEPTH = 16; };

DEVICE void mma16(Bf16, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    MMA("m16n8k16.row.col.f32.bf16.bf16.f32", d, a, b0, b1);
}
DEVICE void mma16(F16, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    MMA("m16n8k16.row.col.f32.f16.f16.f32", d, a, b0, b1);
}

template <class Kind, class A, class B, bool KA, bool KB, int MI, int NI> struct Multiply {
    // Fragments of m16n8k16 (9.7.14.5.8): A's registers are the 8x8 quarters (rows 0, k 0), (8, 0), (0, 8), (8, 8); B's are
    // (k 0), (k 8) of eight columns, and one ldmatrix takes sixteen columns.
    static DEVICE void run(float (&sum)[MI][NI][4], const u16* a, const u16* b, int i, int j) {
        int row = lane_id() % 8, second = lane_id() / 8 % 2 * 8, fourth = lane_id() / 16 * 8;
        #pragma unroll
        for (int p = 0; p < Kind::DEPTH; p += 16) {
            u32 fa[MI][4], fb[NI / 2][4];
            #pragma unroll
            for (int x = 0; x < MI; x++) {
                int r = i + 16 * x + second, q = p + fourth;
                ldmatrix4<!KA>(fa[x], shared_address(KA ? a + (r + row) * A::PITCH + q : a + (q + row) * A::PITCH + r));
            }
            #pragma unroll
            for (int y = 0; y < NI / 2; y++) {
                int r = j + 16 * y + fourth, q = p + second;
                ldmatrix4<!KB>(fb[y], shared_address(KB ? b + (r + row) * B::PITCH + q : b + (q + row) * B::PITCH + r));
            }
            #pragma unroll
            for (int x = 0; x < MI; x++)
                #pragma unroll
                for (int y = 0; y < NI; y++) mma16(Kind(), sum[x][y], fa[x], fb[y / 2][y % 2 * 2], fb[y / 2][y % 2 * 2 + 1]);
        }
    }
};

// Nearest tf32 and the rest, itself rounded to tf32: together 22 bits.
DEVICE void split(float x, u32& hi, u32& lo) {
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(hi) : "f"(x));
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(lo) : "f"(x - __uint_as_float(hi)));
}

template <class A, class B, bool KA, bool KB, int MI, int NI> struct Multiply<Tf32x3, A, B, KA, KB, MI, NI> {
    // Fragments of m16n8k8 (9.7.14.5.7), lane 4 g + t: A has (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); B (t, g), (t + 4, g).
    // The small products are added first.
    static DEVICE void run(float (&sum)[MI][NI][4], const float* a, const float* b, int i, int j) {
        int g = lane_id() / 4, t = lane_id() % 4;
        #pragma unroll
        for (int p = t; p < Tf32x3::DEPTH + t; p += 8) {
            u32 bh[NI][2], bl[NI][2];
            #pragma unroll
            for (int y = 0; y < NI; y++)
                #pragma unroll
                for (int e = 0; e < 2; e++) {
                    int r = j + 8 * y + g, q = p + 4 * e;
                    split(KB ? b[r * B::PITCH + q] : b[q * B::PITCH + r], bh[y][e], bl[y][e]);
                }
            #pragma unroll
            for (int x = 0; x < MI; x++) {
                u32 ah[4], al[4];
                #pragma unroll
                for (int e = 0; e < 4; e++) {
                    int r = i + 16 * x + g + e % 2 * 8, q = p + e / 2 * 4;
                    split(KA ? a[r * A::PITCH + q] : a[q * A::PITCH + r], ah[e], al[e]);
                }
                #pragma unroll
                for (int y = 0; y < NI; y++) {
                    MMA("m16n8k8.row.col.f32.tf32.tf32.f32", sum[x][y], ah, bl[y][0], bl[y][1]);
                    MMA("m16n8k8.row.col.f32.tf32.tf32.f32", sum[x][y], al, bh[y][0], bh[y][1]);
                    MMA("m16n8k8.row.col.f32.tf32.tf32.f32", sum[x][y], ah, bh[y][0], bh[y][1]);
                }
            }
        }
    }
};

// A tile of TILE x TILE on 2 x WARPS_N warps.
template <class Kind, bool KA, bool KB, int TILE, int WARPS_N>
DEVICE void tensor_gemm(int m, int n, int k, float alpha, const typename Kind::T* a, int lda, const typename Kind::T* b, int ldb,
                        float beta, float* c, int ldc, const float* bias, u32 flags) {
    using T = typename Kind::T;
    constexpr int DEPTH = Kind::DEPTH, THREADS = 64 * WARPS_N, MI = TILE / 32, NI = TILE / WARPS_N / 8;
    using A = Staged<T, KA, TILE, DEPTH>;
    using B = Staged<T, KB, TILE, DEPTH>;
    extern __shared__ __align__(128) unsigned char shared[];
    T* slices = (T*)shared;
    int i0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE, count = (k + DEPTH - 1) / DEPTH;
    auto begin = [&](int t) {
        if (t < count) {
            T* slice = slices + t % STAGES * (A::SIZE + B::SIZE);
            A::template copy<THREADS>(slice, a, lda, i0, m, t * DEPTH, k, flags & ALIGNED_A);
            B::template copy<THREADS>(slice + A::SIZE, b, ldb, j0, n, t * DEPTH, k, flags & ALIGNED_B);
        }
        commit_copies();
    };
    #pragma unroll
    for (int t = 0; t < STAGES - 1; t++) begin(t);
    int i = warp_id() / WARPS_N * (16 * MI), j = warp_id() % WARPS_N * (8 * NI);
    float sum[MI][NI][4] = {};
    for (int t = 0; t < count; t++) {
        wait_copies<STAGES - 2>();
        __syncthreads();
        begin(t + STAGES - 1);
        const T* slice = slices + t % STAGES * (A::SIZE + B::SIZE);
        Multiply<Kind, A, B, KA, KB, MI, NI>::run(sum, slice, slice + A::SIZE, i, j);
    }
    wait_copies<0>();
    int g = lane_id() / 4, t = lane_id() % 4 * 2;
    #pragma unroll
    for (int x = 0; x < MI; x++)
        #pragma unroll
        for (int y = 0; y < NI; y++)
            #pragma unroll
            for (int h = 0; h < 2; h++)
                finish2(sum[x][y][2 * h], sum[x][y][2 * h + 1], i0 + i + 16 * x + g + 8 * h, j0 + j + 8 * y + t, m, n, alpha,
                        beta, c, ldc, bias, flags);
}

#define TENSOR(KIND, NAME, T)                                                             \
    GEMM(NAME##_gemm_nn_64x64, T, (128), tensor_gemm<KIND, true, false, 64, 2>)           \
    GEMM(NAME##_gemm_nt_64x64, T, (128), tensor_gemm<KIND, true, true, 64, 2>)            \
    GEMM(NAME##_gemm_tn_64x64, T, (128), tensor_gemm<KIND, false, false, 64, 2>)          \
    GEMM(NAME##_gemm_nn_128x128, T, (256), tensor_gemm<KIND, true, false, 128, 4>)        \
    GEMM(NAME##_gemm_nt_128x128, T, (256), tensor_gemm<KIND, true, true, 128, 4>)         \
    GEMM(NAME##_gemm_tn_128x128, T, (256), tensor_gemm<KIND, false, false, 128, 4>)

GEMM(f32_gemm_nn_64x64, float, (256), f32_gemm<true, false, 4>)
GEMM(f32_gemm_nt_64x64, float, (256), f32_gemm<true, true, 4>)
GEMM(f32_gemm_tn_64x64, float, (256), f32_gemm<false, false, 4>)
GEMM(f32_gemm_nn_128x128, float, (256), f32_gemm<true, false, 8>)
GEMM(f32_gemm_nt_128x128, float, (256), f32_gemm<true, true, 8>)
GEMM(f32_gemm_tn_128x128, float, (256), f32_gemm<false, false, 8>)
TENSOR(Tf32x3, tf32x3, float)
TENSOR(Bf16, bf16, u16)
TENSOR(F16, f16, u16)
