// A whole episode by one block: inner steps, query pass and the second-order sweep in one launch, between the product
// that makes Z_0 and Z'_0 of all episodes and the one that makes dW1.
//
//     step k:   Z_k = Z_0 - a G C_k;   (delta_k, dphi_k) = gradient of the head's mean loss at (Z_k, phi_k)
//               C_{k+1} = C_k + delta_k;   phi_{k+1} = phi_k - a dphi_k                              C_0 = 0
//     query:    Z' = Z'_0 - a G' C_S;   (eps, v) = gradient at (Z', phi_S)
//     sweep:    c = -a G'^T eps,   u = 0;   for k = S-1 .. 0 with r = c - a G u and R{phi} = -a v:
//               (dZ, dphi) = head's Hessian at (Z_k, phi_k) times (r, R{phi});   u += dZ,   v += dphi
//
// With the body frozen (ANIL) only the last layer takes steps; its inputs stay, no Gram matrix is read, and the sweep's
// dZ is gathered at the last hidden layer, from where it goes back through the body once.
//
// The episode's memory is shared memory; where it does not fit, the same algebra runs as launches over all episodes
// (grouped.cu). Row strides in it are odd (see product.cuh). Z_0, Z'_0, G' and the head's start are read from global
// memory: Z_0 once a step, G' twice, all in order. Layer l (from 1) has width(l) outputs; "act(l)" is its
// output after ReLU, d(l) the gradient of the loss with respect to its pre-activations, rd(l) that gradient's R-tangent.
// act(1)'s sign is all that is kept of Z_k, and delta_k = d(1) goes straight into C, so a step keeps
//
//     act(1..L-1), softmax p, d(2..L), phi_k:     N (2 (H_1 + .. + H_{L-1}) - H_1 + 2 C) + |phi| numbers or so.
//
// Sums over rows, steps and episodes have a fixed order: no atomics, so a run repeats bit for bit.
#include "product.cuh"
#include "softmax.cuh"

// What the outer loop wants; the numbers are those of src/cuda/meta_step/launches.rs.
enum Order { SECOND = 0, FIRST = 1, DISPLACEMENT = 2, EVALUATE = 3 };

// The layers after the first. In memory a weight's rows are odd(inputs) apart; in `row` and `head` they have no gaps.
struct Net {
    const int* widths;
    int layers;

    DEVICE int width(int l) const { return widths[l - 1]; }
    DEVICE int ld(int l) const { return odd(width(l)); }
    // The sum of ld(from .. to - 1).
    DEVICE int lds(int from, int to) const {
        int sum = 0;
        for (int l = from; l < to; l++) sum += ld(l);
        return sum;
    }
    // Where layer l's weight starts in a head with odd strides; its bias follows.
    DEVICE int at(int l) const {
        int sum = 0;
        for (int i = 2; i < l; i++) sum += width(i) * (ld(i - 1) + 1);
        return sum;
    }
    DEVICE int bias_at(int l) const { return at(l) + width(l) * ld(l - 1); }
    DEVICE int head_len() const { return at(layers + 1); }

    // `f(place with odd strides, place without gaps)` for every number of the head.
    template <class F> DEVICE void each_weight(F f) const {
        int dense = 0;
        for (int l = 2; l <= layers; l++) {
            int in = width(l - 1), out = width(l), w = at(l), b = bias_at(l), gap = ld(l - 1);
            each(out, in, [=](int i, int j) { f(w + i * gap + j, dense + i * in + j); });
            dense += out * in;
            each(1, out, [=](int, int j) { f(b + j, dense + j); });
            dense += out;
        }
    }
};

// The pieces of an episode's memory; src/cuda/meta_step/plan.rs adds up the same sizes.
struct Memory {
    Net net;
    int n, m;
    float *gram, *c, *acts, *passes, *phis, *v, *losses, *scratch;
    int act_len, pass_len, phi_len;

    DEVICE Memory(float* base, Net net, int n, int m, int saved, bool frozen) : net(net), n(n), m(m) {
        int last = net.layers, h = net.ld(1);
        act_len = n * net.lds(1, last);
        pass_len = n * (net.ld(last) + net.lds(last > 1 ? 2 : 1, last + 1));
        phi_len = net.head_len();
        int slots = larger(saved, 1);
        gram = base;
        c = gram + (frozen ? 0 : n * odd(n));
        acts = c + (frozen ? 0 : n * h);
        passes = acts + (frozen ? 1 : slots) * act_len;
        phis = passes + slots * pass_len;
        v = phis + (saved + 1) * phi_len;
        losses = v + phi_len;
        scratch = losses + larger(m, (int)WARP);
    }

    // Slot k of what the steps keep.
    DEVICE float* act(int k, int l) const { return acts + k * act_len + n * net.lds(1, l); }
    DEVICE float* p(int k) const { return passes + k * pass_len; }
    DEVICE float* d(int k, int l) const { return p(k) + n * (net.ld(net.layers) + net.lds(2, l)); }
    DEVICE float* phi(int k) const { return phis + k * phi_len; }
    // In the scratch, first the query pass.
    DEVICE float* query_act(int l) const { return scratch + m * net.lds(1, l); }
    // Then the sweep: u, tangents of the activations, rd(2 ..).
    DEVICE float* u() const { return scratch; }
    DEVICE float* ract(int l) const { return scratch + n * (net.ld(1) + net.lds(1, l)); }
    DEVICE float* rd(int l) const { return scratch + n * (net.ld(1) + net.lds(1, net.layers) + net.lds(2, l)); }
};

// One episode of the batch.
struct Episode {
    Memory mem;
    Net net;
    int n, m;
    float lr;
    bool frozen;
    const int *labels, *query_labels;
    const float* gram_query;  // null where the first layer takes no step
    int gram_ld;              // of gram_query
    float *z, *z_query;

    // act(l) = relu(act(l-1) W^T + b), without ReLU in the last layer, over `rows` rows.
    DEVICE void forward(int rows, int l, const float* phi, const float* src, float* dst) const {
        const float* bias = phi + net.bias_at(l);
        int ld = net.ld(l);
        bool relu = l < net.layers;
        Plain a{src, net.ld(l - 1)};
        Transposed w{phi + net.at(l), net.ld(l - 1)};
        product(rows, net.width(l), net.width(l - 1), a, w, [=](int i, int j, float sum) {
            float x = sum + bias[j];
            dst[i * ld + j] = relu && x <= 0 ? 0 : x;
        });
        __syncthreads();
    }

    // d(l-1) = (d(l) W) * [act(l-1) > 0], to wherever `store` puts it. `act` may be where it puts it.
    template <class Store>
    DEVICE void backward(int rows, int l, const float* phi, const float* d, const float* act, Store store) const {
        int ld = net.ld(l - 1);
        product(rows, net.width(l - 1), net.width(l), Plain{d, net.ld(l)}, Plain{phi + net.at(l), ld},
                [=](int i, int j, float sum) { store(i, j, act[i * ld + j] > 0 ? sum : 0); });
        __syncthreads();
    }

    // The gradient of layer l: dW = d(l)^T act(l-1), db = column sums of d(l), each as `store(place in the head, value)`.
    template <class Store> DEVICE void weights(int rows, int l, const float* d, const float* act, Store store) const {
        int at = net.at(l), ld = net.ld(l - 1), bias = net.bias_at(l);
        product(net.width(l), net.width(l - 1), rows, Transposed{d, net.ld(l)}, Plain{act, ld},
                [=](int i, int j, float sum) { store(at + i * ld + j, sum); });
        column_sums(rows, net.width(l), d, net.ld(l), [=](int j, float sum) { store(bias + j, sum); });
        __syncthreads();
    }

    // Softmax cross-entropy of `rows` rows: p and the last layer's d, and each row's loss where `losses` is not null.
    DEVICE void loss(int rows, const int* classes, float* z, float* p, float* d, float* losses) const {
        int outputs = net.width(net.layers), ld = net.ld(net.layers), warps = blockDim.x / WARP;
        for (int i = warp_id(); i < rows; i += warps) {
            float loss = softmax_xent_row(outputs, z + i * ld, classes[i], 1.0f / rows, p + i * ld, d + i * ld);
            if (losses && lane_id() == 0) losses[i] = loss;
        }
        __syncthreads();
    }

    // relu(Z_0 - a gram C), or without ReLU where there is no head, to `dst`; without a Gram matrix of Z_0 itself.
    DEVICE void first(int rows, const float* z0, const float* gram, int gram_ld, float* dst) const {
        int h = net.width(1), ld = net.ld(1);
        float by = lr;
        bool relu = net.layers > 1;
        auto store = [=](int i, int j, float sum) {
            float x = fmaf(-by, sum, z0[i * h + j]);
            dst[i * ld + j] = relu && x <= 0 ? 0 : x;
        };
        if (gram) product(rows, h, n, Plain{gram, gram_ld}, Plain{mem.c, ld}, store);
        else each(rows, h, [&](int i, int j) { store(i, j, 0); });
        __syncthreads();
    }

    // The body's activations, which stay.
    DEVICE void frozen_body() const {
        first(n, z, nullptr, 0, mem.act(0, 1));
        for (int l = 2; l < net.layers; l++) forward(n, l, mem.phi(0), mem.act(0, l - 1), mem.act(0, l));
    }

    // One inner step: its values to slot i, the new head to slot `next`, which may be i.
    DEVICE void step(int i, int next) const {
        int last = net.layers, h = net.width(1), ld = net.ld(1);
        const float* phi = mem.phi(i);
        float *phi_next = mem.phi(next), *c = mem.c, *p = mem.p(i), by = lr;
        int acts = frozen ? 0 : i;
        if (!frozen) {
            first(n, z, mem.gram, odd(n), last > 1 ? mem.act(i, 1) : p);
            for (int l = 2; l < last; l++) forward(n, l, phi, mem.act(i, l - 1), mem.act(i, l));
        }
        if (last > 1) forward(n, last, phi, mem.act(acts, last - 1), p);
        loss(n, labels, p, p, mem.d(i, last), nullptr);
        for (int l = last; l > 1; l--) {
            const float *d = mem.d(i, l), *act = mem.act(acts, l - 1);
            float* below = mem.d(i, l - 1);
            int ld_below = net.ld(l - 1);
            if (!frozen && l == 2) backward(n, l, phi, d, act, [=](int r, int j, float x) { c[r * ld + j] += x; });
            else if (!frozen) backward(n, l, phi, d, act, [=](int r, int j, float x) { below[r * ld_below + j] = x; });
            weights(n, l, d, act, [=](int at, float sum) { phi_next[at] = fmaf(-by, sum, phi[at]); });
            if (frozen) break;
        }
        if (frozen && next != i) {
            int last_at = net.at(last);
            net.each_weight([=](int at, int) { if (at < last_at) phi_next[at] = phi[at]; });
            __syncthreads();
        }
        if (last == 1) {
            const float* d = mem.d(i, 1);
            each(n, h, [=](int r, int j) { c[r * ld + j] += d[r * ld + j]; });
            __syncthreads();
        }
    }

    // The query pass with head slot i: outputs and losses; with `back` also eps (where Z'_0 stood) and v.
    DEVICE void query(int i, float* out, bool back) const {
        int last = net.layers, outputs = net.width(last), ld_out = net.ld(last), h = net.width(1);
        const float* phi = mem.phi(i);
        float *z = mem.query_act(last), *v = mem.v, *eps = z_query;
        first(m, z_query, gram_query, gram_ld, mem.query_act(1));
        for (int l = 2; l <= last; l++) forward(m, l, phi, mem.query_act(l - 1), mem.query_act(l));
        each(m, outputs, [=](int r, int j) { out[r * outputs + j] = z[r * ld_out + j]; });
        __syncthreads();
        loss(m, query_labels, z, z, z, mem.losses);
        if (!back) return;
        for (int l = last; l > 1; l--) {
            // d(l-1) takes the place of act(l-1) once the weights' gradient has read it.
            float* act = mem.query_act(l - 1);
            int ld = net.ld(l - 1);
            weights(m, l, mem.query_act(l), act, [=](int at, float sum) { v[at] = sum; });
            backward(m, l, phi, mem.query_act(l), act, [=](int r, int j, float x) { act[r * ld + j] = x; });
        }
        const float* d = mem.query_act(1);
        int ld = net.ld(1);
        each(m, h, [=](int r, int j) { eps[r * h + j] = d[r * ld + j]; });
        __syncthreads();
    }

    // c = -a G'^T eps to where C was; u = 0.
    DEVICE void begin_sweep() const {
        int h = net.width(1), ld = net.ld(1);
        float *c = mem.c, *u = mem.u(), by = lr;
        product(n, h, m, Transposed{gram_query, gram_ld}, Plain{z_query, h},
                [=](int i, int j, float sum) { c[i * ld + j] = -by * sum; });
        each(n, h, [=](int i, int j) { u[i * ld + j] = 0; });
        __syncthreads();
    }

    // R{z(l)} = R{a} W^T + a R{W}^T + R{b} with R{phi} = -a v; the first term is left out where R{a} is zero. `mask`: this
    // layer's activations, whose sign the tangent takes, or null in the last layer.
    DEVICE void rforward(int l, const float* phi, const float* a, const float* ra, const float* mask, float* dst) const {
        int in = net.width(l - 1), ld_in = net.ld(l - 1), ld = net.ld(l), at = net.at(l);
        const float *rw = mem.v + at, *rb = mem.v + net.bias_at(l), *w = phi + at;
        float by = -lr;
        auto fill = [=](auto& tile) {
            tile.add(Plain{a, ld_in}, Transposed{rw, ld_in}, in);
            tile.scale(by);
            if (ra) tile.add(Plain{ra, ld_in}, Transposed{w, ld_in}, in);
        };
        product(n, net.width(l), fill, [=](int i, int j, float sum) {
            float x = fmaf(by, rb[j], sum);
            dst[i * ld + j] = mask && !(mask[i * ld + j] > 0) ? 0 : x;
        });
        __syncthreads();
    }

    // rd(l-1) = (rd(l) W + d(l) R{W}) * [act(l-1) > 0], to `store`; then v += the head's part of the product, which reads
    // R{W} = -a v for the last time before.
    template <class Store>
    DEVICE void rbackward(int l, const float* phi, const float* d, const float* rd, const float* act, const float* ract,
                          Store store) const {
        int out = net.width(l), in = net.width(l - 1), ld_in = net.ld(l - 1), ld = net.ld(l), at = net.at(l), rows = n;
        float *v = mem.v, by = -lr;
        auto down = [=](auto& tile) {
            tile.add(Plain{d, ld}, Plain{v + at, ld_in}, out);
            tile.scale(by);
            tile.add(Plain{rd, ld}, Plain{phi + at, ld_in}, out);
        };
        product(n, in, down, [=](int i, int j, float sum) { store(i, j, act[i * ld_in + j] > 0 ? sum : 0); });
        __syncthreads();
        auto weight = [=](auto& tile) {
            tile.add(Transposed{rd, ld}, Plain{act, ld_in}, rows);
            if (ract) tile.add(Transposed{d, ld}, Plain{ract, ld_in}, rows);
        };
        product(out, in, weight, [=](int i, int j, float sum) { v[at + i * ld_in + j] += sum; });
        float* vb = v + net.bias_at(l);
        column_sums(rows, out, rd, ld, [=](int j, float sum) { vb[j] += sum; });
        __syncthreads();
    }

    // rd(L) from R{z(L)}, in place.
    DEVICE void rloss(int k, float* rz) const {
        int outputs = net.width(net.layers), ld = net.ld(net.layers), warps = blockDim.x / WARP;
        for (int i = warp_id(); i < n; i += warps) {
            softmax_xent_rop_row(outputs, mem.p(k) + i * ld, rz + i * ld, 1.0f / n, rz + i * ld);
        }
        __syncthreads();
    }

    // One step back: the product with the Hessian at step k, added to u and v.
    DEVICE void sweep(int k) const {
        int last = net.layers, h = net.width(1), ld = net.ld(1);
        float *u = mem.u(), by = lr;
        const float* c = mem.c;
        // r, with the sign of act(1); without a head it is R{z(L)} itself.
        float* r = last > 1 ? mem.ract(1) : mem.rd(1);
        const float* act = last > 1 ? mem.act(k, 1) : nullptr;
        product(n, h, n, Plain{mem.gram, odd(n)}, Plain{u, ld}, [=](int i, int j, float sum) {
            float x = fmaf(-by, sum, c[i * ld + j]);
            r[i * ld + j] = act && !(act[i * ld + j] > 0) ? 0 : x;
        });
        __syncthreads();
        const float* phi = mem.phi(k);
        for (int l = 2; l <= last; l++) {
            const float* mask = l < last ? mem.act(k, l) : nullptr;
            rforward(l, phi, mem.act(k, l - 1), mem.ract(l - 1), mask, l < last ? mem.ract(l) : mem.rd(l));
        }
        rloss(k, mem.rd(last));
        for (int l = last; l > 1; l--) {
            float* below = l > 2 ? mem.rd(l - 1) : u;
            int ld_below = net.ld(l - 1);
            bool adds = l == 2;
            rbackward(l, phi, mem.d(k, l), mem.rd(l), mem.act(k, l - 1), mem.ract(l - 1), [=](int i, int j, float x) {
                below[i * ld_below + j] = adds ? below[i * ld_below + j] + x : x;
            });
        }
        if (last == 1) {
            const float* rd = mem.rd(1);
            each(n, h, [=](int i, int j) { u[i * ld + j] += rd[i * ld + j]; });
            __syncthreads();
        }
    }

    // The whole sweep where only the last layer took steps: its adjoint gathers at act(L-1), then goes back once.
    DEVICE void sweep_frozen(int steps) const {
        int last = net.layers, ld_last = net.ld(last - 1);
        float *bar = last > 2 ? mem.ract(last - 1) : mem.u(), *v = mem.v, *rd = mem.rd(last);
        each(n, net.width(last - 1), [=](int i, int j) { bar[i * ld_last + j] = 0; });
        __syncthreads();
        const float* act = mem.act(0, last - 1);
        for (int k = steps - 1; k >= 0; k--) {
            rforward(last, mem.phi(k), act, nullptr, nullptr, rd);
            rloss(k, rd);
            rbackward(last, mem.phi(k), mem.d(k, last), rd, act, nullptr,
                      [=](int i, int j, float x) { bar[i * ld_last + j] += x; });
        }
        for (int l = last - 1; l > 1; l--) {
            const float *d = mem.ract(l), *below = mem.act(0, l - 1);
            float* dst = l > 2 ? mem.ract(l - 1) : mem.u();
            int ld = net.ld(l - 1);
            weights(n, l, d, below, [=](int at, float sum) { v[at] += sum; });
            backward(n, l, mem.phi(0), d, below, [=](int i, int j, float x) { dst[i * ld + j] = x; });
        }
    }

    // u (times `by`), or zeros, to where Z_0 stood; row = (column sums of eps and u, head's gradient).
    DEVICE void finish(const float* u, float by, bool use_eps, float* row) const {
        int h = net.width(1), ld = net.ld(1), rows = n;
        float *dz = z, *eps = z_query;
        each(n, h, [=](int i, int j) { dz[i * h + j] = u ? by * u[i * ld + j] : 0; });
        if (!use_eps) each(m, h, [=](int i, int j) { eps[i * h + j] = 0; });
        __syncthreads();
        int queries = m;
        for (int j = threadIdx.x; j < h; j += blockDim.x) {
            float sum = 0;
            #pragma unroll 8
            for (int i = 0; i < rows; i++) sum += dz[i * h + j];
            #pragma unroll 8
            for (int i = 0; i < queries; i++) sum += eps[i * h + j];
            row[j] = sum;
        }
        const float* v = mem.v;
        net.each_weight([=](int at, int dense) { row[h + dense] = v[at]; });
        __syncthreads();
    }

    // Whether every number of `row` is finite, in every thread: x - x is 0 or NaN.
    DEVICE bool finite(const float* row, int len) const {
        float zero = 0;
        for (int i = threadIdx.x; i < len; i += blockDim.x) zero += row[i] - row[i];
        zero = warp_sum(zero);
        if (lane_id() == 0) mem.losses[warp_id()] = zero;
        __syncthreads();
        zero = 0;
        for (int i = 0; i < (int)(blockDim.x / WARP); i++) zero += mem.losses[i];
        return zero == 0;
    }
};

// Block t is episode t: rows support_rows[t] .. support_rows[t+1] of z, labels and Gram matrices, and so for the queries; rows of
// Gram matrices are gram_ld numbers apart. In: Z_0 in z, Z'_0 in z_query, head. Out: u in z, eps in z_query, query outputs,
// row t of `rows` (first bias, head) and whether it is finite, the mean query loss.
KERNEL __launch_bounds__(256, 1) episode_shared(const int* widths, int layers, const int* support_rows,
                                                const int* query_rows, const int* labels, const int* query_labels,
                                                const float* grams, const float* grams_query, int gram_ld, float* z,
                                                float* z_query, const float* head, int steps, float lr, int order,
                                                int last_layer, float* out, float* rows, int row_len, float* losses,
                                                u32* finite) {
    extern __shared__ float base[];
    Net net{widths, layers};
    int t = blockIdx.x, s0 = support_rows[t], q0 = query_rows[t], h = net.width(1), outputs = net.width(layers);
    int n = support_rows[t + 1] - s0, m = query_rows[t + 1] - q0;
    bool frozen = last_layer && layers > 1, second = order == SECOND, moves = !frozen && steps > 0;
    Memory mem(base, net, n, m, second ? steps : 0, frozen);
    Episode e{mem, net, n, m, lr, frozen, labels + s0, query_labels + q0,
              moves ? grams_query + (i64)q0 * gram_ld : nullptr, gram_ld, z + (i64)s0 * h, z_query + (i64)q0 * h};
    float *phi = mem.phi(0), *v = mem.v;
    net.each_weight([=](int at, int dense) { phi[at] = head[dense]; });
    if (moves) {
        const float* gram = grams + (i64)s0 * gram_ld;
        int own_ld = odd(n), ld = net.ld(1);
        each(n, n, [=](int i, int j) { mem.gram[i * own_ld + j] = gram[i * gram_ld + j]; });
        each(n, h, [=](int i, int j) { mem.c[i * ld + j] = 0; });
    }
    __syncthreads();
    if (frozen && n > 0) e.frozen_body();
    for (int k = 0; k < steps && n > 0; k++) e.step(second ? k : 0, second ? k + 1 : 0);
    int end = second && n > 0 ? steps : 0;
    bool back = order == SECOND || order == FIRST;
    e.query(end, out + (i64)q0 * outputs, back);
    if (warp_id() == 0) {
        float sum = 0;
        for (int i = lane_id(); i < m; i += WARP) sum += mem.losses[i];
        sum = warp_sum(sum);
        if (lane_id() == 0) losses[t] = m > 0 ? sum / m : 0;
    }
    if (order == EVALUATE) return;
    const float* u = nullptr;
    if (second && steps > 0 && n > 0) {
        if (frozen) e.sweep_frozen(steps);
        else {
            e.begin_sweep();
            for (int k = steps - 1; k >= 0; k--) e.sweep(k);
        }
        u = mem.u();
    }
    if (order == DISPLACEMENT) {
        // theta - theta_S: W_0 - (W_0 - a C^T X) = a C^T X.
        net.each_weight([=](int at, int dense) { v[at] = head[dense] - phi[at]; });
        u = moves ? mem.c : nullptr;
        __syncthreads();
    }
    float* row = rows + (i64)t * row_len;
    e.finish(u, order == DISPLACEMENT ? lr : 1.0f, back, row);
    bool good = e.finite(row, row_len);
    if (threadIdx.x == 0) finite[t] = good;
}
