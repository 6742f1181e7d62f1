// Softmax cross-entropy of one row by some neighbouring lanes of a warp, which stride over the classes; sums go through shuffles,
// so the order of summation depends on the number of classes and lanes alone.
#pragma once
#include "common.cuh"

// `p = softmax(z)`, `dz[i] = scale * (p[i] - [i = target])`; returns `ln sum exp(z) - z[target]` in every lane. Shifted by the
// largest logit, so finite logits never overflow. p or dz may be z; all lanes of the warp take part, those without a row with n = 0.
template <int LANES = (int)WARP>
DEVICE float softmax_xent_row(int n, const float* z, int target, float scale, float* p, float* dz) {
    int lane = lane_id() % LANES;
    float top = -__int_as_float(0x7f800000), sum = 0, at = n > 0 ? z[target] : 0;
    for (int i = lane; i < n; i += LANES) top = fmaxf(top, z[i]);
    top = lanes_max<LANES>(top);
    __syncwarp();
    for (int i = lane; i < n; i += LANES) {
        float e = expf(z[i] - top);
        p[i] = e;
        sum += e;
    }
    sum = lanes_sum<LANES>(sum);
    float inverse = 1 / sum;
    for (int i = lane; i < n; i += LANES) {
        float share = p[i] * inverse;
        p[i] = share;
        dz[i] = scale * (share - (i == target ? 1.0f : 0.0f));
    }
    return logf(sum) - (at - top);
}

// The R-operator of that gradient: `rdz[i] = scale * p[i] * (rz[i] - sum over j of p[j] rz[j])`. rdz may be rz.
template <int LANES = (int)WARP>
DEVICE void softmax_xent_rop_row(int n, const float* p, const float* rz, float scale, float* rdz) {
    int lane = lane_id() % LANES;
    float mean = 0;
    for (int i = lane; i < n; i += LANES) mean = fmaf(p[i], rz[i], mean);
    mean = lanes_sum<LANES>(mean);
    for (int i = lane; i < n; i += LANES) rdz[i] = scale * p[i] * (rz[i] - mean);
}
