// The parts of an inner step, each over all episodes of a batch in one launch: products of small matrices with what is done to
// their elements, the loss and its R-operator, and what an episode leaves. The meta-step takes them where an episode's
// memory does not fit a block's (the order of launches: src/cuda/meta_step/wide.rs).
//
// Rows of examples lie one behind the other, those of episode e from rows[e] to rows[e + 1]; other matrices, as an episode's own
// weights, lie a stride apart. A grid has blocks for the largest episode: those that a smaller one does not need end at once.
#include "gemm.cuh"
#include "softmax.cuh"

// How many in each episode: its rows, or where `rows` is null the same number in all. Structures are those of src/cuda/grouped.rs.
struct Extent {
    const int* rows;
    i64 most;
    DEVICE int first(int e) const { return rows ? rows[e] : 0; }
    DEVICE int count(int e) const { return rows ? rows[e + 1] - rows[e] : (int)most; }
};

// One matrix of an episode, row-major; "aligned" is: every row starts at a multiple of 16 bytes.
struct Matrix {
    float* data;
    int ld;
    bool aligned;
};

// Those of all episodes: episode e's starts at data + e * stride + (its first row) * ld.
struct Matrices {
    float* data;
    i64 ld, stride;
    DEVICE Matrix of(int e, int first) const {
        float* at = data + e * stride + first * ld;
        return Matrix{at, (int)ld, ((u64)at | (u64)ld * 4) % 16 == 0};
    }
};

// For each episode, with mask(x)[i][j] = mask[i][j] > 0 ? x : 0 where there is a mask:
//
//     x       = alpha * (sum over p < k of A[i][p] * B[p][j] + bias[j]) + sum over p < k of A2[i][p] * B2[p][j]
//     c[i][j] = relu?( mask?(x) + beta * old[i][j] )        or, with MASK_RESULT,       mask( relu?( x + beta * old[i][j] ) )
//
// Forms as in gemm.cu. Null: no second product, no mask. beta = 0 does not read old, which may be c, as may the mask. BIAS (nt): n
// numbers stand behind B's last row. SUMS (tn): m numbers behind c's last row become those behind old's times beta plus alpha
// times the sums of A's columns; so weights with a bias behind them are one operand. Row offsets: A and B along k, or A
// along m, move with the rows of that extent, all others along m.
struct Product {
    Extent m, k;
    i64 n;
    Matrices a, b, a2, b2, old, c, mask;
    float alpha, beta;
    u64 flags;
};
constexpr u32 BIAS = 16, SUMS = 32, MASK_RESULT = 64;  // beside RELU

// Four neighbours of a row, those inside the matrix.
DEVICE void store4(const Matrix& dst, int row, int col, int cols, const float (&x)[4]) {
    float* at = dst.data + (i64)row * dst.ld + col;
    if (dst.aligned && col + 4 <= cols) {
        *(float4*)at = make_float4(x[0], x[1], x[2], x[3]);
    } else {
        #pragma unroll
        for (int j = 0; j < 4; j++)
            if (col + j < cols) at[j] = x[j];
    }
}

// alpha (sum + bias) of the first product's columns from `col` on.
template <int MICRO>
DEVICE void scale(float (&sum)[MICRO][4], const Product& p, const Matrix& b, int col, int n) {
    float4 bias = make_float4(0, 0, 0, 0);
    if (p.flags & BIAS) bias = load4(b.data + (i64)n * b.ld, 0, 0, col, 1, n, b.aligned);
    float of[4] = {bias.x, bias.y, bias.z, bias.w};
    #pragma unroll
    for (int i = 0; i < MICRO; i++)
        #pragma unroll
        for (int j = 0; j < 4; j++) sum[i][j] = p.alpha * (sum[i][j] + of[j]);
}

// The end of four neighbours' sums; a NaN passes the ReLU, so that an episode that diverged shows.
DEVICE void finish4(float (&x)[4], int row, int col, int m, int n, const Product& p, const Matrix& old, const Matrix& mask,
                    const Matrix& c) {
    bool of_result = p.flags & MASK_RESULT;
    float4 was = make_float4(0, 0, 0, 0), sign = make_float4(1, 1, 1, 1);
    if (p.beta != 0) was = load4(old.data, old.ld, row, col, m, n, old.aligned);
    if (p.mask.data) sign = load4(mask.data, mask.ld, row, col, m, n, mask.aligned);
    float before[4] = {was.x, was.y, was.z, was.w}, positive[4] = {sign.x, sign.y, sign.z, sign.w};
    #pragma unroll
    for (int j = 0; j < 4; j++) {
        float y = of_result || positive[j] > 0 ? x[j] : 0;
        if (p.beta != 0) y = fmaf(p.beta, before[j], y);
        if ((p.flags & RELU) && y <= 0) y = 0;
        x[j] = positive[j] > 0 || !of_result ? y : 0;
    }
    store4(c, row, col, n, x);
}

// A block has ROWS x COLS elements, a thread MICRO x 4 of them in groups of four rows that lie APART, as in gemm.cu's f32 kernel;
// each loads one float4 of A's slice, and as many as it takes one of B's. Each element is one chain of multiply-adds in
// rising order of p, the first product before the second.
template <bool KA, bool KB, int ROWS, int COLS, int MICRO> DEVICE void product(const Product& g) {
    constexpr int ACROSS = COLS / 4, THREADS = ROWS / MICRO * ACROSS, DEPTH = 4 * THREADS / ROWS;
    constexpr int APART = 4 * ROWS / MICRO, GROUPS = MICRO / 4;
    using A = Slice<KA, ROWS, DEPTH>;
    using B = Slice<KB, COLS, DEPTH>;
    __shared__ __align__(16) float sa[2][DEPTH * A::PITCH];
    __shared__ __align__(16) float sb[2][DEPTH * B::PITCH];
    int e = blockIdx.z, m = g.m.count(e), n = (int)g.n, k = g.k.count(e);
    int i0 = blockIdx.x * ROWS, j0 = blockIdx.y * COLS;
    if (i0 >= m) return;
    int ti = threadIdx.x / ACROSS * 4, tj = threadIdx.x % ACROSS * 4;
    bool sums = !KA && (g.flags & SUMS) && blockIdx.y == 0 && threadIdx.x < ROWS;
    bool loads_b = COLS == ROWS || threadIdx.x < COLS * DEPTH / 4;
    float sum[MICRO][4] = {}, total = 0;
    int products = g.a2.data ? 2 : 1;
    #pragma unroll 1
    for (int which = 0; which < products; which++) {
        int k0 = g.k.first(e);
        Matrix a = (which ? g.a2 : g.a).of(e, KA ? g.m.first(e) : k0), b = (which ? g.b2 : g.b).of(e, KB ? 0 : k0);
        A::store(sa[0], A::load(a.data, a.ld, i0, m, 0, k, a.aligned));
        if (loads_b) B::store(sb[0], B::load(b.data, b.ld, j0, n, 0, k, b.aligned));
        __syncthreads();
        for (int p0 = 0, slot = 0; p0 < k; p0 += DEPTH, slot ^= 1) {
            float4 next_a = A::load(a.data, a.ld, i0, m, p0 + DEPTH, k, a.aligned);
            float4 next_b = B::load(b.data, b.ld, j0, loads_b ? n : 0, p0 + DEPTH, k, b.aligned);
            #pragma unroll
            for (int p = 0; p < DEPTH; p++) {
                float x[MICRO], y[4];
                *(float4*)y = *(const float4*)(sb[slot] + p * B::PITCH + tj);
                #pragma unroll
                for (int q = 0; q < GROUPS; q++)
                    *(float4*)(x + 4 * q) = *(const float4*)(sa[slot] + p * A::PITCH + APART * q + ti);
                #pragma unroll
                for (int i = 0; i < MICRO; i++)
                    #pragma unroll
                    for (int j = 0; j < 4; j++) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
            }
            if (sums && which == 0) {
                #pragma unroll
                for (int p = 0; p < DEPTH; p++) total += sa[slot][p * A::PITCH + threadIdx.x];
            }
            A::store(sa[slot ^ 1], next_a);
            if (loads_b) B::store(sb[slot ^ 1], next_b);
            __syncthreads();
        }
        if (which == 0) scale(sum, g, b, j0 + tj, n);
    }
    int m0 = g.m.first(e);
    Matrix old = g.old.of(e, m0), mask = g.mask.of(e, m0), c = g.c.of(e, m0);
    #pragma unroll
    for (int i = 0; i < MICRO; i++) {
        int row = i0 + i / 4 * APART + ti + i % 4, col = j0 + tj;
        if (row < m && col < n) finish4(sum[i], row, col, m, n, g, old, mask, c);
    }
    int column = i0 + threadIdx.x;
    if (sums && column < m) {
        total *= g.alpha;
        if (g.beta != 0) total = fmaf(g.beta, old.data[(i64)m * old.ld + column], total);
        c.data[(i64)m * c.ld + column] = total;
    }
}

KERNEL __launch_bounds__(64) f32_grouped_nn_32x32(Product p) { product<true, false, 32, 32, 4>(p); }
KERNEL __launch_bounds__(64) f32_grouped_nt_32x32(Product p) { product<true, true, 32, 32, 4>(p); }
KERNEL __launch_bounds__(64) f32_grouped_tn_32x32(Product p) { product<false, false, 32, 32, 4>(p); }
KERNEL __launch_bounds__(256, 3) f32_grouped_nn_64x64(Product p) { product<true, false, 64, 64, 4>(p); }
KERNEL __launch_bounds__(256, 3) f32_grouped_nt_64x64(Product p) { product<true, true, 64, 64, 4>(p); }
KERNEL __launch_bounds__(256, 3) f32_grouped_tn_64x64(Product p) { product<false, false, 64, 64, 4>(p); }
KERNEL __launch_bounds__(256, 2) f32_grouped_nn_128x64(Product p) { product<true, false, 128, 64, 8>(p); }
KERNEL __launch_bounds__(256, 2) f32_grouped_nt_128x64(Product p) { product<true, true, 128, 64, 8>(p); }
KERNEL __launch_bounds__(256, 2) f32_grouped_tn_128x64(Product p) { product<false, false, 128, 64, 8>(p); }

// Softmax cross-entropy of each episode's mean loss, a warp a row of n logits; the grid's y is the episode. p and dz may be z and
// each other (then it is dz that stays); losses may be null.
KERNEL __launch_bounds__(256) grouped_softmax_xent(const int* rows, int n, const float* z, const int* targets, float* p,
                                                   float* dz, float* losses) {
    int first = rows[blockIdx.y], count = rows[blockIdx.y + 1] - first, warps = blockDim.x / WARP;
    for (int i = blockIdx.x * warps + warp_id(); i < count; i += gridDim.x * warps) {
        i64 at = (i64)(first + i) * n;
        float loss = softmax_xent_row(n, z + at, targets[first + i], 1.0f / count, p + at, dz + at);
        if (losses && lane_id() == 0) losses[first + i] = loss;
    }
}

// Its R-operator; rdz may be rz.
KERNEL __launch_bounds__(256) grouped_softmax_xent_rop(const int* rows, int n, const float* p, const float* rz, float* rdz) {
    int first = rows[blockIdx.y], count = rows[blockIdx.y + 1] - first, warps = blockDim.x / WARP;
    for (int i = blockIdx.x * warps + warp_id(); i < count; i += gridDim.x * warps) {
        i64 at = (i64)(first + i) * n;
        softmax_xent_rop_row(n, p + at, rz + at, 1.0f / count, rdz + at);
    }
}

// The sum of an episode's column of h numbers a row, in order.
DEVICE float rows_sum(const int* rows, int h, const float* src, int j) {
    float sum = 0;
    if (!src) return sum;
    #pragma unroll 8
    for (int i = rows[blockIdx.x]; i < rows[blockIdx.x + 1]; i++) sum += src[(i64)i * h + j];
    return sum;
}

// The sum over a block's threads, the same bits in each.
DEVICE float block_sum(float x) {
    __shared__ float sums[256 / WARP];
    x = warp_sum(x);
    if (lane_id() == 0) sums[warp_id()] = x;
    __syncthreads();
    x = 0;
    for (int i = 0; i < (int)(blockDim.x / WARP); i++) x += sums[i];
    return x;
}

// What episode e, a block, leaves: mean[e] of its query rows' losses; and where there is a gradient `row`, which has the head's
// gradient from number h on, before that the column sums of u and eps (either may be null), and whether all of it is
// finite. With `head` the gradient there is head - adapted, which is made here: `adapted` has the numbers from `from` on,
// `stride` an episode; those before did not move.
KERNEL __launch_bounds__(256) grouped_ends(const int* support_rows, const int* query_rows, const float* losses, float* mean,
                                           int h, const float* u, const float* eps, const float* head,
                                           const float* adapted, i64 stride, int from, float* row, int row_len,
                                           u32* finite) {
    int e = blockIdx.x, q0 = query_rows[e], m = query_rows[e + 1] - q0;
    if (warp_id() == 0) {
        float sum = 0;
        for (int i = lane_id(); i < m; i += WARP) sum += losses[q0 + i];
        sum = warp_sum(sum);
        if (lane_id() == 0) mean[e] = m > 0 ? sum / m : 0;
    }
    if (!row) return;
    row += (i64)e * row_len;
    for (int j = threadIdx.x; j < h; j += blockDim.x) {
        float of_support = rows_sum(support_rows, h, u, j);
        row[j] = of_support + rows_sum(query_rows, h, eps, j);
    }
    if (head) {
        for (int i = threadIdx.x; i < row_len - h; i += blockDim.x) {
            row[h + i] = i < from ? 0 : head[i] - adapted[e * stride + i - from];
        }
    }
    __syncthreads();
    // x - x is 0 or NaN.
    float zero = 0;
    #pragma unroll 8
    for (int i = threadIdx.x; i < row_len; i += blockDim.x) zero += row[i] - row[i];
    zero = block_sum(zero);
    if (threadIdx.x == 0) finite[e] = zero == 0;
}
