// Gram matrices of the episodes, "+ 1" carrying the first layer's bias: G = X X^T + 1 and G' = X' X^T + 1 (dense), and the
// same for token bags by merging their rising token lists. Row t of the grid's y is episode t; its matrix starts at
// t * stride, without gaps. Each element is one sum in rising order.
#include "product.cuh"

// Columns of the inputs that a block keeps in shared memory at once.
constexpr int DEPTH = 32, ROWS = 32;

// dst[i][j] = a_i . b_j + 1 for a block's 32 x 32 elements: a thread has 1 x 4 of them. `a_rows` and `b_rows` give each
// episode's rows in `a` and `b` (width columns).
KERNEL __launch_bounds__(256) gram(const int* a_rows, const int* b_rows, const float* a, const float* b, int width,
                                   float* dst, i64 stride) {
    __shared__ float as[ROWS][DEPTH + 1], bs[ROWS][DEPTH + 1];
    int t = blockIdx.y, a0 = a_rows[t], b0 = b_rows[t], m = a_rows[t + 1] - a0, n = b_rows[t + 1] - b0;
    int across = (n + ROWS - 1) / ROWS, down = (m + ROWS - 1) / ROWS;
    for (int tile = blockIdx.x; tile < across * down; tile += gridDim.x) {
        int i0 = tile / across * ROWS, j0 = tile % across * ROWS, i = threadIdx.x / 8, j = threadIdx.x % 8;
        float sum[4] = {0, 0, 0, 0};
        for (int p0 = 0; p0 < width; p0 += DEPTH) {
            __syncthreads();
            for (int e = threadIdx.x; e < ROWS * DEPTH; e += blockDim.x) {
                int r = e / DEPTH, p = e % DEPTH;
                bool inside = p0 + p < width;
                as[r][p] = inside && i0 + r < m ? a[(i64)(a0 + i0 + r) * width + p0 + p] : 0;
                bs[r][p] = inside && j0 + r < n ? b[(i64)(b0 + j0 + r) * width + p0 + p] : 0;
            }
            __syncthreads();
            for (int p = 0; p < DEPTH; p++) {
                #pragma unroll
                for (int q = 0; q < 4; q++) sum[q] = fmaf(as[i][p], bs[j + 8 * q][p], sum[q]);
            }
        }
        #pragma unroll
        for (int q = 0; q < 4; q++) {
            if (i0 + i < m && j0 + j + 8 * q < n) dst[t * stride + (i64)(i0 + i) * n + j0 + j + 8 * q] = sum[q] + 1;
        }
    }
}

// dst[i][j] = bag a_i . bag b_j + 1: a thread an element. Bag r is tokens and weights offsets[r] .. offsets[r+1].
KERNEL gram_bags(const int* a_rows, const int* b_rows, const int* a_offsets, const u32* a_tokens, const float* a_weights,
                 const int* b_offsets, const u32* b_tokens, const float* b_weights, float* dst, i64 stride) {
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
        dst[t * stride + e] = sum + 1;
    }
}
