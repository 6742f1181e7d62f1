// Softmax cross-entropy over rows of logits: loss, gradient and R-operator; a warp a row (formulas: softmax.cuh).
#include "softmax.cuh"

DEVICE int warp_of_grid() { return blockIdx.x * (blockDim.x / WARP) + warp_id(); }
DEVICE int warps_of_grid() { return gridDim.x * (blockDim.x / WARP); }

// z: rows of n numbers, `ld` apart; p and dz: rows x n; losses[i] unscaled. dz or p may be z, then ld is n.
KERNEL softmax_xent(int rows, int n, const float* z, i64 ld, const int* targets, float scale, float* p, float* dz,
                    float* losses) {
    for (int i = warp_of_grid(); i < rows; i += warps_of_grid()) {
        i64 at = (i64)i * n;
        float loss = softmax_xent_row(n, z + i * ld, targets[i], scale, p + at, dz + at);
        if (lane_id() == 0) losses[i] = loss;
    }
}

// rdz may be rz.
KERNEL softmax_xent_rop(int rows, int n, const float* p, const float* rz, float scale, float* rdz) {
    for (int i = warp_of_grid(); i < rows; i += warps_of_grid()) {
        i64 at = (i64)i * n;
        softmax_xent_rop_row(n, p + at, rz + at, scale, rdz + at);
    }
}
