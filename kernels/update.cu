// Weight updates, one pass over memory.
//
// Sparse updates take a list of different rows: row r of the gradient belongs to row rows[r] of the weights; dense ones pass
// null. A null gradient is one of zeros. Products and sums are not fused, so a row that is updated late has the bits of one
// updated in time.
#include "common.cuh"

// Where element e of the gradient lies in the weights.
DEVICE i64 place(i64 e, const u32* rows, int width) { return rows ? (i64)rows[e / width] * width + e % width : e; }

// v = momentum v + g + weight_decay w;  w -= lr v. n: elements of g.
KERNEL sgd(i64 n, const u32* rows, int width, float lr, float momentum, float weight_decay, const float* g, float* v,
           float* w) {
    for (i64 e = first_of_grid(); e < n; e += step_of_grid()) {
        i64 i = place(e, rows, width);
        float velocity = __fadd_rn(__fadd_rn(__fmul_rn(momentum, v[i]), g ? g[e] : 0.0f), __fmul_rn(weight_decay, w[i]));
        v[i] = velocity;
        w[i] = __fadd_rn(w[i], -__fmul_rn(lr, velocity));
    }
}

// m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w = w - lr weight_decay w - lr (m c1) / (sqrt(v c2) + eps), with
// c = 1 / (1 - b^t) (Loshchilov and Hutter, "Decoupled weight decay regularization", algorithm 2).
KERNEL adamw(i64 n, const u32* rows, int width, float lr, float beta1, float beta2, float eps, float weight_decay,
             float correction1, float correction2, const float* g, float* m, float* v, float* w) {
    float keep1 = 1 - beta1, keep2 = 1 - beta2, shrink = lr * weight_decay;
    for (i64 e = first_of_grid(); e < n; e += step_of_grid()) {
        i64 i = place(e, rows, width);
        float gradient = g ? g[e] : 0.0f, weight = w[i];
        float first = __fadd_rn(__fmul_rn(beta1, m[i]), __fmul_rn(keep1, gradient));
        float second = __fadd_rn(__fmul_rn(beta2, v[i]), __fmul_rn(__fmul_rn(keep2, gradient), gradient));
        float root = __fadd_rn(__fsqrt_rn(__fmul_rn(second, correction2)), eps);
        float direction = __fdiv_rn(__fmul_rn(first, correction1), root);
        m[i] = first;
        v[i] = second;
        w[i] = __fadd_rn(__fadd_rn(weight, -__fmul_rn(shrink, weight)), -__fmul_rn(lr, direction));
    }
}
