// Small matrix products by one block, for operands in shared or global memory.
//
// C (m x n) is cut into tiles of TM x TN elements, a thread each. A tile's rows are neighbours, its columns lie
// ceil(n / TN) apart, so neighbouring threads read neighbouring columns of B and the same rows of A. A 4 x 4 tile loads 8
// values for 16 multiply-adds; where that would leave threads without work the tile is one element. Each element is one
// chain of multiply-adds in rising order, so its bits depend neither on the tile nor on the number of threads.
#pragma once
#include "common.cuh"

// A row stride that is odd: 32 lanes that read down a column hit 32 different banks.
DEVICE int odd(int n) { return n | 1; }

// Element (i, j) of a row-major matrix, or of its transpose.
struct Plain {
    const float* data;
    int ld;
    DEVICE float operator()(int i, int j) const { return data[i * ld + j]; }
};
struct Transposed {
    const float* data;
    int ld;
    DEVICE float operator()(int i, int j) const { return data[j * ld + i]; }
};

// One tile's sums, and the rows and columns they belong to. Those past the end repeat the last one and are not stored.
template <int TM, int TN> struct Tile {
    float sum[TM][TN];
    int row[TM], col[TN];

    // sum += A B over k products.
    template <class A, class B> DEVICE void add(const A& a, const B& b, int k) {
        constexpr int AT_ONCE = TM * TN > 1 ? 4 : 8;  // few warps: loads are begun early
        #pragma unroll AT_ONCE
        for (int p = 0; p < k; p++) {
            float x[TM], y[TN];
            #pragma unroll
            for (int i = 0; i < TM; i++) x[i] = a(row[i], p);
            #pragma unroll
            for (int j = 0; j < TN; j++) y[j] = b(p, col[j]);
            #pragma unroll
            for (int i = 0; i < TM; i++) {
                #pragma unroll
                for (int j = 0; j < TN; j++) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
            }
        }
    }

    DEVICE void scale(float by) {
        #pragma unroll
        for (int i = 0; i < TM; i++) {
            #pragma unroll
            for (int j = 0; j < TN; j++) sum[i][j] *= by;
        }
    }
};

// `fill(tile)` adds to a zeroed tile, `store(i, j, sum)` takes each of its elements that lies in the matrix.
template <int TM, int TN, class Fill, class Store> DEVICE void each_tile(int m, int n, Fill fill, Store store) {
    int across = (n + TN - 1) / TN, tiles = (m + TM - 1) / TM * across;
    for (int t = threadIdx.x; t < tiles; t += blockDim.x) {
        int i0 = t / across * TM, j0 = t % across;
        Tile<TM, TN> tile;
        #pragma unroll
        for (int i = 0; i < TM; i++) tile.row[i] = smaller(i0 + i, m - 1);
        #pragma unroll
        for (int j = 0; j < TN; j++) tile.col[j] = smaller(j0 + j * across, n - 1);
        #pragma unroll
        for (int i = 0; i < TM; i++) {
            #pragma unroll
            for (int j = 0; j < TN; j++) tile.sum[i][j] = 0;
        }
        fill(tile);
        #pragma unroll
        for (int i = 0; i < TM; i++) {
            #pragma unroll
            for (int j = 0; j < TN; j++) {
                if (i0 + i < m && j0 + j * across < n) store(i0 + i, j0 + j * across, tile.sum[i][j]);
            }
        }
    }
}

// The same, with the tile that keeps the block's threads busy.
template <class Fill, class Store> DEVICE void product(int m, int n, Fill fill, Store store) {
    if (m * n >= 8 * (int)blockDim.x) each_tile<4, 4>(m, n, fill, store);
    else each_tile<1, 1>(m, n, fill, store);
}

// C (m x n) = store(A B).
template <class A, class B, class Store> DEVICE void product(int m, int n, int k, const A& a, const B& b, Store store) {
    product(m, n, [&](auto& tile) { tile.add(a, b, k); }, store);
}

// `store(j, sum over i < m of src[i * ld + j])` for j < n, i rising.
template <class Store> DEVICE void column_sums(int m, int n, const float* src, int ld, Store store) {
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        float sum = 0;
        #pragma unroll 8
        for (int i = 0; i < m; i++) sum += src[i * ld + j];
        store(j, sum);
    }
}

// `f(i, j)` for all i < m, j < n, spread over the block with j fastest.
template <class F> DEVICE void each(int m, int n, F f) {
    for (int t = threadIdx.x; t < m * n; t += blockDim.x) f(t / n, t % n);
}
