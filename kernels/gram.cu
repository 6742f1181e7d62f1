// Gram matrices of the episodes, "+ 1" carrying the first layer's bias: G = X X^T + 1 and G' = X' X^T + 1 (dense), and the
// same for token bags by merging their rising token lists. Row t of the grid's y is episode t. Row r of `a` has row r of dst, `ld`
// numbers apart, of which as many are written as its episode has rows of `b`. The order of an element's sum depends on the
// width of the rows alone.
#include "common.cuh"

// A tile of the matrix, and the columns of the inputs that a block keeps in shared memory at once.
constexpr int ROWS = 32, DEPTH = 32;
// Groups of 64 threads: each takes its share of every DEPTH columns, and has 4 x 4 elements a thread.
constexpr int GROUPS = 4, SHARE = DEPTH / GROUPS;

// dst[i][j] = a_i . b_j + 1 for 32 x 32 elements at once: 8 loads of shared memory for 16 multiply-adds, then the groups' sums
// are added, (0 + 1) + (2 + 3). A thread's columns lie 8 apart and pitches are odd, so a warp's loads hit different banks.
// `a_rows` and `b_rows` give each episode's rows in `a` and `b` (width columns); the grid's x has a block for every tile of
// the largest episode.
KERNEL __launch_bounds__(64 * GROUPS) gram(const int* a_rows, const int* b_rows, const float* a, const float* b, int width,
                                           float* dst, int ld) {
    __shared__ float as[ROWS][DEPTH + 1], bs[ROWS][DEPTH + 1], sums[GROUPS][ROWS][ROWS + 1];
    int t = blockIdx.y, a0 = a_rows[t], b0 = b_rows[t], m = a_rows[t + 1] - a0, n = b_rows[t + 1] - b0;
    int across = (n + ROWS - 1) / ROWS, down = (m + ROWS - 1) / ROWS;
    int group = threadIdx.x / 64, i = threadIdx.x / 8 % 8 * 4, j = threadIdx.x % 8;
    if (blockIdx.x >= across * down) return;
    int i0 = blockIdx.x / across * ROWS, j0 = blockIdx.x % across * ROWS;
    float sum[4][4] = {};
    for (int p0 = 0; p0 < width; p0 += DEPTH) {
        __syncthreads();
        for (int e = threadIdx.x; e < ROWS * DEPTH; e += blockDim.x) {
            int r = e / DEPTH, p = e % DEPTH;
            bool inside = p0 + p < width;
            as[r][p] = inside && i0 + r < m ? a[(i64)(a0 + i0 + r) * width + p0 + p] : 0;
            bs[r][p] = inside && j0 + r < n ? b[(i64)(b0 + j0 + r) * width + p0 + p] : 0;
        }
        __syncthreads();
        #pragma unroll
        for (int p = 0; p < SHARE; p++) {
            float x[4], y[4];
            #pragma unroll
            for (int r = 0; r < 4; r++) {
                x[r] = as[i + r][group * SHARE + p];
                y[r] = bs[j + 8 * r][group * SHARE + p];
            }
            #pragma unroll
            for (int r = 0; r < 4; r++)
                #pragma unroll
                for (int q = 0; q < 4; q++) sum[r][q] = fmaf(x[r], y[q], sum[r][q]);
        }
    }
    #pragma unroll
    for (int r = 0; r < 4; r++)
        #pragma unroll
        for (int q = 0; q < 4; q++) sums[group][i + r][j + 8 * q] = sum[r][q];
    __syncthreads();
    for (int e = threadIdx.x; e < ROWS * ROWS; e += blockDim.x) {
        int r = e / ROWS, c = e % ROWS;
        float whole = (sums[0][r][c] + sums[1][r][c]) + (sums[2][r][c] + sums[3][r][c]);
        if (i0 + r < m && j0 + c < n) dst[(i64)(a0 + i0 + r) * ld + j0 + c] = whole + 1;
    }
}

// dst[i][j] = bag a_i . bag b_j + 1: a thread an element. Bag r is tokens and weights offsets[r] .. offsets[r+1].
KERNEL gram_bags(const int* a_rows, const int* b_rows, const int* a_offsets, const u32* a_tokens, const float* a_weights,
                 const int* b_offsets, const u32* b_tokens, const float* b_weights, float* dst, int ld) {
    int t = blockIdx.y, a0 = a_rows[t], b0 = b_rows[t], m = a_rows[t + 1] - a0, n = b_rows[t + 1] - b0;
    for (int e = blockIdx.x * blockDim.x + threadIdx.x; e < m * n; e += gridDim.x * blockDim.x) {
        int i = e / n, j = e % n;
        int x = a_offsets[a0 + i], x_end = a_offsets[a0 + i + 1], y = b_offsets[b0 + j], y_end = b_offsets[b0 + j + 1];
        float sum = 0;
        while (x < x_end && y < y_end) {
            u32 left = a_tokens[x], right = b_tokens[y];
            if (left == right) sum = fmaf(a_weights[x], b_weights[y], sum);
            x += left <= right;
            y += right <= left;
        }
        dst[(i64)(a0 + i) * ld + j] = sum + 1;
    }
}
