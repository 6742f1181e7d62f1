// Small matrix products by one block, for operands in shared memory whose rows begin at multiples of 16 bytes.
//
// C (m x n) is cut into tiles of TM x 4 elements, a thread each. An operand is read four numbers at once: along its rows, which
// are those of the sum where it is "K-major", else those of the result. So a 2 x 4 tile takes 6 loads for 32 multiply-adds, and
// 1 x 4 ones are for results that would leave threads without work. Neighbouring threads have neighbouring columns. Each element
// is one chain of multiply-adds in rising order, so its bits depend neither on the tile nor on the number of threads. Sums that
// are long beside the few results are shared by 8 lanes, whose partial sums are added up in a fixed order.
#pragma once
#include "common.cuh"

// From one row to the next: a multiple of 4 that is an odd number of them, so that 8 lanes which read four numbers each down a
// column hit all 32 banks.
DEVICE int stride(int n) { return 4 * ((n + 3) / 4 | 1); }

// A row-major matrix.
struct Rows {
    const float* data;
    int ld;
};

DEVICE void load4(const float* from, float (&x)[4]) {
    float4 v = *(const float4*)from;
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}

// Four numbers of a row from column `col` on, or as many as there are.
DEVICE void load4(const float* row, int col, int cols, bool aligned, float (&x)[4]) {
    if (aligned) return load4(row + col, x);
    #pragma unroll
    for (int j = 0; j < 4; j++) x[j] = col + j < cols ? row[col + j] : 0;
}

// What becomes of sums, with mask(x) = mask[i][j] > 0 ? x : 0, and null for what there is not:
//
//     dst[i][j] = mask(scale sum + bias_scale bias[j]) + old[i][j]       or, with `masks_all`,      mask(relu?( all of that ))
//
// dst and mask have rows of `ld`; dst may be old or mask. A NaN passes the ReLU, so that an episode that diverged shows.
struct End {
    float* dst;
    int ld;
    float scale = 1, bias_scale = 1;
    const float *bias = nullptr, *old = nullptr, *mask = nullptr;
    int old_ld = 0;
    bool old_aligned = true, masks_all = false, relu = false;

    DEVICE float element(float sum, float bias_j, float before, float sign) const {
        float x = bias ? fmaf(bias_scale, bias_j, scale * sum) : scale * sum;
        if (mask && !masks_all && !(sign > 0)) x = 0;
        if (old) x = bias || mask ? x + before : fmaf(scale, sum, before);
        if (relu && x <= 0) x = 0;
        return mask && masks_all && !(sign > 0) ? 0 : x;
    }

    // Columns col .. col + 3 of n; those past the end are the row's gap. `o`: what `old4` found.
    DEVICE void put4(int i, int col, int n, const float (&sum)[4], const float (&o)[4]) const {
        float b[4] = {}, s[4] = {}, x[4];
        if (bias) load4(bias + col, b);
        if (mask) load4(mask + i * ld + col, s);
        #pragma unroll
        for (int j = 0; j < 4; j++) x[j] = element(sum[j], b[j], o[j], s[j]);
        *(float4*)(dst + i * ld + col) = make_float4(x[0], x[1], x[2], x[3]);
    }

    DEVICE void old4(int i, int col, int n, float (&o)[4]) const {
        if (old) load4(old + (i64)i * old_ld, col, n, old_aligned, o);
    }

    DEVICE void put(int i, int j, float sum) const {
        dst[i * ld + j] = element(sum, bias ? bias[j] : 0, old ? old[(i64)i * old_ld + j] : 0, mask ? mask[i * ld + j] : 0);
    }
};

// One tile's sums. Rows and columns past the end repeat the last one, or are a row's gap, and are not stored outside it.
template <bool KA, bool KB, int TM> struct Tile {
    float sum[TM][4];
    int row, m, col[4];

    // sum += A B over k products.
    DEVICE void add(Rows a, Rows b, int k) {
        const float *pa[TM], *pb[4];
        #pragma unroll
        for (int i = 0; i < TM; i++) pa[i] = KA ? a.data + smaller(row + i, m - 1) * a.ld : a.data + row;
        #pragma unroll
        for (int j = 0; j < 4; j++) pb[j] = KB ? b.data + col[j] * b.ld : b.data + col[0];
        int p = 0;
        #pragma unroll 1
        for (; p + 4 <= k; p += 4) {
            float x[TM][4], y[4][4];  // [row][term], [term][column]
            #pragma unroll
            for (int q = 0; q < 4; q++) {
                if (KA && q < TM) load4(pa[q] + p, x[q]);
                if (!KA) each_row(pa[0] + (p + q) * a.ld, [&](int i, float v) { x[i][q] = v; });
                float v[4];
                load4(KB ? pb[q] + p : pb[0] + (p + q) * b.ld, v);
                #pragma unroll
                for (int r = 0; r < 4; r++) (KB ? y[r][q] : y[q][r]) = v[r];
            }
            #pragma unroll
            for (int q = 0; q < 4; q++) {
                #pragma unroll
                for (int i = 0; i < TM; i++)
                    #pragma unroll
                    for (int j = 0; j < 4; j++) sum[i][j] = fmaf(x[i][q], y[q][j], sum[i][j]);
            }
        }
        #pragma unroll 1
        for (; p < k; p++) {
            float x[TM], y[4];
            if (!KA) each_row(pa[0] + p * a.ld, [&](int i, float v) { x[i] = v; });
            #pragma unroll
            for (int i = 0; i < TM; i++)
                if (KA) x[i] = pa[i][p];
            if (!KB) load4(pb[0] + p * b.ld, y);
            #pragma unroll
            for (int j = 0; j < 4; j++)
                if (KB) y[j] = pb[j][p];
            #pragma unroll
            for (int i = 0; i < TM; i++)
                #pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
        }
    }

    // The tile's rows of a term, where they are neighbours.
    template <class F> static DEVICE void each_row(const float* at, F f) {
        static_assert(TM <= 2, "one load");
        if (TM == 1) return f(0, *at);
        float2 v = *(const float2*)at;
        f(0, v.x), f(TM - 1, v.y);
    }

    DEVICE void scale(float by) {
        #pragma unroll
        for (int i = 0; i < TM; i++)
            #pragma unroll
            for (int j = 0; j < 4; j++) sum[i][j] *= by;
    }
};

// `fill(tile)` adds to a zeroed tile. `thread`: which of the block's threads this one stands for.
template <bool KA, bool KB, int TM, class Fill>
DEVICE void each_tile(int thread, int m, int n, Fill fill, const End& end) {
    int across = (n + 3) / 4, tiles = (m + TM - 1) / TM * across;
    #pragma unroll 1
    for (int t = thread; t < tiles; t += blockDim.x) {
        int first = t % across;
        Tile<KA, KB, TM> tile;
        tile.row = t / across * TM, tile.m = m;
        #pragma unroll
        for (int j = 0; j < 4; j++) tile.col[j] = KB ? smaller(first + j * across, n - 1) : 4 * first + j;
        #pragma unroll
        for (int i = 0; i < TM; i++)
            #pragma unroll
            for (int j = 0; j < 4; j++) tile.sum[i][j] = 0;
        // Begun before the sums: they may come from global memory.
        float before[TM][4] = {};
        #pragma unroll
        for (int i = 0; i < TM; i++)
            if (!KB) end.old4(smaller(tile.row + i, m - 1), tile.col[0], n, before[i]);
        fill(tile);
        #pragma unroll
        for (int i = 0; i < TM; i++) {
            if (tile.row + i >= m) break;
            if (!KB) end.put4(tile.row + i, tile.col[0], n, tile.sum[i], before[i]);
            #pragma unroll
            for (int j = 0; j < 4; j++)
                if (KB && first + j * across < n) end.put(tile.row + i, first + j * across, tile.sum[i][j]);
        }
    }
}

// One row's sums of four columns, each lane's share of them: both operands K-major.
constexpr int SHARES = 8;
struct Share {
    float sum[4];
    int row, col[4];

    DEVICE void add(Rows a, Rows b, int k) {
        int lane = threadIdx.x % SHARES, whole = k / 4 * 4;
        const float* pa = a.data + row * a.ld;
        #pragma unroll 2
        for (int p = 4 * lane; p < whole; p += 4 * SHARES) {
            float x[4], y[4][4];
            load4(pa + p, x);
            #pragma unroll
            for (int j = 0; j < 4; j++) load4(b.data + col[j] * b.ld + p, y[j]);
            #pragma unroll
            for (int q = 0; q < 4; q++)
                #pragma unroll
                for (int j = 0; j < 4; j++) sum[j] = fmaf(x[q], y[j][q], sum[j]);
        }
        if (whole + lane < k) {
            #pragma unroll
            for (int j = 0; j < 4; j++) sum[j] = fmaf(pa[whole + lane], b.data[col[j] * b.ld + whole + lane], sum[j]);
        }
    }

    DEVICE void scale(float by) {
        #pragma unroll
        for (int j = 0; j < 4; j++) sum[j] *= by;
    }
};

template <class Fill> DEVICE void each_share(int m, int n, Fill fill, const End& end) {
    int across = (n + 3) / 4, all = m * across, lane = threadIdx.x % SHARES;
    // All lanes of a warp go round as often.
    #pragma unroll 1
    for (int t0 = 0; t0 < all; t0 += blockDim.x / SHARES) {
        int t = t0 + threadIdx.x / SHARES, first = smaller(t, all - 1) % across;
        Share share;
        share.row = smaller(t, all - 1) / across;
        #pragma unroll
        for (int j = 0; j < 4; j++) share.col[j] = smaller(first + j * across, n - 1), share.sum[j] = 0;
        fill(share);
        float own = 0;
        #pragma unroll
        for (int j = 0; j < 4; j++) {
            float sum = lanes_sum<SHARES>(share.sum[j]);
            if (j == lane) own = sum;
        }
        int column = first + lane * across;
        if (t < all && lane < 4 && column < n) end.put(share.row, column, own);
    }
}

// m x n sums of k terms, in tiles that keep the block's threads busy. `reversed`: begins with the last thread, for a product that
// runs beside one which begins with the first.
template <bool KA, bool KB, class Fill>
DEVICE void product(int m, int n, int k, Fill fill, const End& end, bool reversed = false) {
    int tiles = (m + 1) / 2 * ((n + 3) / 4), thread = reversed ? blockDim.x - 1 - threadIdx.x : threadIdx.x;
    if (tiles * 2 >= (int)blockDim.x) return each_tile<KA, KB, 2>(thread, m, n, fill, end);
    if constexpr (KA && KB) {
        if (k >= 4 * SHARES) return each_share(m, n, fill, end);
    }
    each_tile<KA, KB, 1>(thread, m, n, fill, end);
}

// C (m x n) of A B over k terms.
template <bool KA, bool KB> DEVICE void product(int m, int n, int k, Rows a, Rows b, const End& end, bool reversed = false) {
    product<KA, KB>(m, n, k, [=](auto& tile) { tile.add(a, b, k); }, end, reversed);
}

// `store(j, sum over i < m of src[i * ld + j])` for j < n, i rising, by the last threads first.
template <class Store> DEVICE void column_sums(int m, int n, const float* src, int ld, Store store) {
    for (int j = blockDim.x - 1 - threadIdx.x; j < n; j += blockDim.x) {
        float sum = 0;
        #pragma unroll 8
        for (int i = 0; i < m; i++) sum += src[i * ld + j];
        store(j, sum);
    }
}

// `f(i, j)` for all i < m, j < n: a row a warp, j its lanes.
template <class F> DEVICE void each(int m, int n, F f) {
    for (int i = warp_id(); i < m; i += blockDim.x / WARP)
        for (int j = lane_id(); j < n; j += WARP) f(i, j);
}
