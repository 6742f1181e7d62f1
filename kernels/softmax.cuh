// Softmax cross-entropy of one row by one warp: lanes stride over the classes, sums go through shuffles, so the order of
// summation depends on the number of classes alone.
#pragma once
#include "common.cuh"

// `p = softmax(z)`, `dz[i] = scale * (p[i] - [i = target])`; returns `ln sum exp(z) - z[target]` in every lane. Shifted by the
// largest logit, so finite logits never overflow. p or dz may be z; all lanes of the warp take part.
DEVICE float softmax_xent_row(int n, const float* z, int target, float scale, float* p, float* dz) {
    float top = -__int_as_float(0x7f800000), sum = 0, at = z[target];
    for (int i = lane_id(); i < n; i += WARP) top = fmaxf(top, z[i]);
    top = warp_max(top);
    __syncwarp();
    for (int i = lane_id(); i < n; i += WARP) {
        float e = expf(z[i] - top);
        p[i] = e;
        sum += e;
    }
    sum = warp_sum(sum);
    float inverse = 1 / sum;
    for (int i = lane_id(); i < n; i += WARP) {
        float share = p[i] * inverse;
        p[i] = share;
        dz[i] = scale * (share - (i == target ? 1.0f : 0.0f));
    }
    return logf(sum) - (at - top);
}

// The R-operator of that gradient: `rdz[i] = scale * p[i] * (rz[i] - sum over j of p[j] rz[j])`. rdz may be rz.
DEVICE void softmax_xent_rop_row(int n, const float* p, const float* rz, float scale, float* rdz) {
    float mean = 0;
    for (int i = lane_id(); i < n; i += WARP) mean = fmaf(p[i], rz[i], mean);
    mean = warp_sum(mean);
    for (int i = lane_id(); i < n; i += WARP) rdz[i] = scale * p[i] * (rz[i] - mean);
}
