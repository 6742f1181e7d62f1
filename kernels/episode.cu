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
// (grouped.cu). Rows in it begin at multiples of 16 bytes (see product.cuh). Z_0 is read from global memory once a step. Layer l
// (from 1) has width(l) outputs; "act(l)" is its output after ReLU, d(l) the gradient of the loss with respect to its
// pre-activations, rd(l) that gradient's R-tangent. act(1)'s sign is all that is kept of Z_k, and delta_k = d(1) goes straight into
// C, so a step keeps
//
//     act(1..L-1), softmax p, d(2..L), phi_k:     N (2 (H_1 + .. + H_{L-1}) - H_1 + 2 C) + |phi| numbers or so.
//
// Support and query rows go through the same code, and so do the steps of the sweep: instructions are fetched from a cache that a
// copy for each would not fit. Sums over rows, steps and episodes have a fixed order: no atomics, so a run repeats bit for bit.
#include "product.cuh"
#include "softmax.cuh"

// What the outer loop wants; the numbers are those of src/cuda/meta_step/launches.rs.
enum Order { SECOND = 0, FIRST = 1, DISPLACEMENT = 2, EVALUATE = 3 };

// A layer's outputs, their row stride, the strides of all layers before it, and where its weights start in a head with strides.
struct __align__(16) Layer {
    int width, ld, before, at;
};

// Neighbours of a row that a bias fills.
DEVICE int whole4(int n) { return (n + 3) / 4 * 4; }

// All layers. In memory a weight's rows are stride(inputs) apart and its bias, filled up to a multiple of 4, follows; in `row` and
// `head` they have no gaps.
struct Net {
    const Layer* table;
    int layers;

    DEVICE Layer operator()(int l) const { return table[l - 1]; }
    DEVICE int bias_at(int l) const { return table[l - 1].at + table[l - 1].width * table[l - 2].ld; }
    // Strides of all layers together, and numbers of the head.
    DEVICE int lds() const { return table[layers].before; }
    DEVICE int head_len() const { return table[layers].at; }

    // `f(layer, place with gaps, place without)` for every number of the head.
    template <class F> DEVICE void each_weight(F f) const {
        int dense = 0;
        for (int l = 2; l <= layers; l++) {
            Layer below = table[l - 2], own = table[l - 1];
            int in = below.width, bias = bias_at(l);
            each(own.width, in, [=](int i, int j) { f(l, own.at + i * below.ld + j, dense + i * in + j); });
            dense += own.width * in;
            each(1, own.width, [=](int, int j) { f(l, bias + j, dense + j); });
            dense += own.width;
        }
    }
};

// The layers' table, by one thread: one entry more than there are layers.
DEVICE void describe(const int* widths, int layers, Layer* table) {
    Layer own{0, 0, 0, 0};
    for (int l = 1; l <= layers + 1; l++) {
        own.before += own.ld;
        // Of layer l - 1, which has weights here where it is not the first.
        if (l > 2) own.at += own.width * table[l - 3].ld + whole4(own.width);
        own.width = l <= layers ? widths[l - 1] : 0;
        own.ld = stride(own.width);
        table[l - 1] = own;
    }
}

// Where the pieces of an episode's memory begin, and the lengths of those that each step has; in shared memory itself, as registers
// are dearer. src/cuda/meta_step/plan.rs adds up the same sizes.
struct __align__(16) Places {
    int gram, gram_query, c, acts, passes, phis, vs, losses, scratch, end, act_len, pass_len, phi_len;
    int own;  // the strides before the first layer whose d is kept

    DEVICE Places(Net net, int n, int m, int saved, bool frozen) {
        int last = net.layers, h = net(1).ld, lds = net.lds(), ld_last = net(last).ld, slots = larger(saved, 1);
        own = last > 1 ? net(2).before : 0;
        act_len = n * (lds - ld_last);
        pass_len = n * (ld_last + lds - own);
        phi_len = net.head_len();
        gram = 0;
        gram_query = gram + (frozen ? 0 : n * stride(n));
        c = gram_query + (frozen ? 0 : m * stride(n));
        acts = c + (frozen ? 0 : n * h);
        passes = acts + (frozen ? 1 : slots) * act_len;
        phis = passes + slots * pass_len;
        vs = phis + (slots + 1) * phi_len;
        losses = vs + 2 * phi_len;
        scratch = losses + whole4(larger(m, (int)WARP));
        end = scratch + larger(m * lds, n * (h + lds - ld_last + lds - own));
    }
};

struct Memory {
    float* base;
    const Places* at;
    Net net;
    int n, m;

    DEVICE float* gram() const { return base + at->gram; }
    DEVICE float* gram_query() const { return base + at->gram_query; }
    DEVICE float* c() const { return base + at->c; }
    DEVICE float* losses() const { return base + at->losses; }
    DEVICE float* scratch() const { return base + at->scratch; }
    // Slot k of what the steps keep.
    DEVICE float* act(int k, int l) const { return base + at->acts + k * at->act_len + n * net(l).before; }
    DEVICE float* p(int k) const { return base + at->passes + k * at->pass_len; }
    DEVICE float* d(int k, int l) const { return p(k) + n * (net(net.layers).ld + net(l).before - at->own); }
    DEVICE float* phi(int k) const { return base + at->phis + k * at->phi_len; }
    DEVICE float* v(int k) const { return base + at->vs + k * at->phi_len; }
    // In the scratch, first the query pass.
    DEVICE float* query_act(int l) const { return scratch() + m * net(l).before; }
    // Then the sweep: u, tangents of the activations, rd(2 ..).
    DEVICE float* u() const { return scratch(); }
    DEVICE float* ract(int l) const { return scratch() + n * (net(1).ld + net(l).before); }
    DEVICE float* rd(int l) const {
        return scratch() + n * (net(1).ld + net(net.layers).before + net(l).before - at->own);
    }
};

// One episode of the batch.
struct Episode {
    Memory mem;
    Net net;
    int n, m;
    float lr;
    bool frozen;
    const int *labels, *query_labels;
    float *z, *z_query;

    // Where layer l's weights lie in slot k of the head: those before the last do not move where the body is frozen.
    DEVICE const float* weights(int k, int l) const { return mem.phi(frozen && l < net.layers ? 0 : k) + net(l).at; }
    // Which of the two v has layer l's part.
    DEVICE float* gradient(int k, int l) const { return mem.v(frozen && l < net.layers ? 0 : k) + net(l).at; }

    // Softmax cross-entropy of `rows` rows, LANES lanes each: p in place of z, the last layer's d (which may be z too), and each row's
    // loss where `losses` is not null.
    template <int LANES> DEVICE void loss(int rows, const int* classes, float* z, float* d, float* losses) const {
        int outputs = net(net.layers).width, ld = net(net.layers).ld;
        for (int i0 = 0; i0 < rows; i0 += blockDim.x / LANES) {
            int i = i0 + threadIdx.x / LANES, at = i < rows ? i * ld : 0;
            float loss = softmax_xent_row<LANES>(i < rows ? outputs : 0, z + at, i < rows ? classes[i] : 0, 1.0f / rows, z + at,
                                                 d + at);
            if (losses && i < rows && threadIdx.x % LANES == 0) losses[i] = loss;
        }
    }

    // rd(L) from R{z(L)}, in place.
    template <int LANES> DEVICE void rloss(const float* p, float* rz) const {
        int outputs = net(net.layers).width, ld = net(net.layers).ld;
        for (int i0 = 0; i0 < n; i0 += blockDim.x / LANES) {
            int i = i0 + threadIdx.x / LANES, at = i < n ? i * ld : 0;
            softmax_xent_rop_row<LANES>(i < n ? outputs : 0, p + at, rz + at, 1.0f / n, rz + at);
        }
    }

    // Support or query rows with slot `phi` of the head, layers from .. to; then, of the last layer, loss and gradient. Support rows
    // leave what the sweep needs in slot k, their share of C, and slot `next` of the head, which is another than `phi`; query rows
    // outputs and losses, eps in act(1)'s place and v.
    DEVICE void pass(int k, int phi, int next, bool is_query, int from, int to, bool c_is_zero, float* out, bool back) const {
        int last = net.layers, rows = is_query ? m : n;
        Layer top = net(last), one = net(1);
        float* acts = is_query ? mem.scratch() : mem.act(frozen ? 0 : k, 1);
        float* logits = is_query ? mem.query_act(last) : mem.p(k);
        float* dz = is_query ? logits : mem.d(k, last);
        if (from == 1) {
            End end{last > 1 ? acts : logits, one.ld, -lr};
            end.old = is_query ? z_query : z, end.old_ld = one.width, end.old_aligned = one.width % 4 == 0;
            end.relu = last > 1;
            Rows gram{is_query ? mem.gram_query() : mem.gram(), stride(n)};
            product<true, false>(rows, one.width, c_is_zero ? 0 : n, gram, Rows{mem.c(), one.ld}, end);
            __syncthreads();
        }
        for (int l = larger(from, 2); l <= to; l++) {
            Layer own = net(l), below = net(l - 1);
            Rows w{weights(phi, l), below.ld};
            End end{l < last ? acts + rows * own.before : logits, own.ld};
            end.bias = w.data + own.width * below.ld, end.relu = l < last;
            product<true, true>(rows, own.width, below.width, Rows{acts + rows * below.before, below.ld}, w, end);
            __syncthreads();
        }
        if (to < last) return;
        if (is_query) {
            each(m, top.width, [=](int i, int j) { out[i * top.width + j] = logits[i * top.ld + j]; });
            __syncthreads();
        }
        const int* classes = is_query ? query_labels : labels;
        float* losses = is_query ? mem.losses() : nullptr;
        if (top.width <= 8) loss<8>(rows, classes, logits, dz, losses);
        else loss<(int)WARP>(rows, classes, logits, dz, losses);
        __syncthreads();
        if (!back) return;
        float *c = mem.c(), by = is_query ? 1 : -lr;
        for (int l = last; l > 1; l--) {
            Layer own = net(l), below = net(l - 1);
            float* act = acts + rows * below.before;
            Rows d{l == last ? dz : is_query ? acts + rows * own.before : mem.d(k, l), own.ld};
            // dW = d(l)^T act(l-1), db = column sums of d(l).
            const float* w = weights(phi, l);
            float* dst = is_query ? gradient(0, l) : mem.phi(next) + own.at;
            const float* old = is_query ? nullptr : w;
            End end{dst, below.ld, by};
            end.old = old, end.old_ld = below.ld;
            product<false, false>(own.width, below.width, rows, d, Rows{act, below.ld}, end, true);
            int bias = own.width * below.ld;
            column_sums(rows, own.width, d.data, own.ld,
                        [=](int j, float sum) { dst[bias + j] = old ? fmaf(by, sum, old[bias + j]) : sum; });
            if (frozen && !is_query) break;
            // d(l-1) = (d(l) W) * [act(l-1) > 0]: of query rows in the place of act(l-1), which everyone has read then.
            if (is_query) __syncthreads();
            bool adds = l == 2 && !is_query;
            End down{is_query ? act : adds ? c : mem.d(k, l - 1), below.ld};
            down.mask = act, down.old = adds ? c : nullptr, down.old_ld = below.ld;
            product<true, false>(rows, below.width, own.width, d, Rows{w, below.ld}, down);
            if (l > 2) __syncthreads();
        }
        if (last == 1 && !is_query) each(n, one.width, [=](int i, int j) { c[i * one.ld + j] += dz[i * one.ld + j]; });
        __syncthreads();
    }

    // What the query pass leaves elsewhere: eps, and its column sums.
    DEVICE void leave_eps(float* row) const {
        Layer one = net(1);
        int h = one.width, ld = one.ld;
        float* dst = z_query;
        const float* eps = mem.scratch();
        each(m, h, [=](int i, int j) { dst[i * h + j] = eps[i * ld + j]; });
        column_sums(m, h, eps, ld, [=](int j, float sum) { row[j] = sum; });
    }

    // c = -a G'^T eps to where C was.
    DEVICE void begin_sweep() const {
        Layer one = net(1);
        product<false, false>(n, one.width, m, Rows{mem.gram_query(), stride(n)}, Rows{mem.scratch(), one.ld},
                              End{mem.c(), one.ld, -lr});
        __syncthreads();
    }

    // One step back: the product with the Hessian at step k, added to u (which begins with the first step) and from v `was` to v
    // `now`. Where the body is frozen only the last layer's part, to act(L-1)'s adjoint; then k < 0 is the way through the body.
    DEVICE void sweep(int k, bool is_first, int was, int now) const {
        int last = net.layers, slot = larger(k, 0), acts = frozen ? 0 : slot;
        float by = -lr, *u = mem.u();
        Layer one = net(1), top = net(last);
        if (!frozen) {
            // r, with the sign of act(1); without a head it is R{z(L)} itself.
            End end{last > 1 ? mem.ract(1) : mem.rd(1), one.ld, by};
            end.old = mem.c(), end.old_ld = one.ld, end.mask = last > 1 ? mem.act(slot, 1) : nullptr, end.masks_all = true;
            product<true, false>(n, one.width, is_first ? 0 : n, Rows{mem.gram(), stride(n)}, Rows{u, one.ld}, end);
            __syncthreads();
        }
        // R{z(l)} = R{a} W^T + a R{W}^T + R{b} with R{phi} = -a v; the first term is left out where R{a} is zero.
        for (int l = frozen ? last : 2; l <= last && k >= 0; l++) {
            Layer own = net(l), below = net(l - 1);
            Rows a{mem.act(acts, l - 1), below.ld}, ra{mem.ract(l - 1), below.ld};
            Rows rw{gradient(was, l), below.ld}, w{weights(slot, l), below.ld};
            End end{l < last ? mem.ract(l) : mem.rd(l), own.ld};
            end.bias = rw.data + own.width * below.ld, end.bias_scale = by;
            end.mask = l < last ? mem.act(slot, l) : nullptr, end.masks_all = true;
            int k2 = frozen ? 0 : below.width;
            product<true, true>(n, own.width, below.width, [=](auto& tile) {
                tile.add(a, rw, below.width);
                tile.scale(by);
                tile.add(ra, w, k2);
            }, end);
            __syncthreads();
        }
        if (k >= 0) {
            if (top.width <= 8) rloss<8>(mem.p(slot), mem.rd(last));
            else rloss<(int)WARP>(mem.p(slot), mem.rd(last));
            __syncthreads();
        }
        int to = frozen && k >= 0 ? last : 2;
        for (int l = k >= 0 ? last : last - 1; l >= to; l--) {
            Layer own = net(l), below = net(l - 1);
            // On the way through the body its adjoint is all there is.
            Rows rd{k >= 0 ? mem.rd(l) : mem.ract(l), own.ld}, d{mem.d(slot, l), own.ld};
            Rows act{mem.act(acts, l - 1), below.ld}, ract{mem.ract(l - 1), below.ld};
            const float *rw = gradient(was, l), *w = weights(slot, l);
            int both = k >= 0 ? own.width : 0, rows_of_both = frozen ? 0 : n, rows = n;
            // rd(l-1) = (rd(l) W + d(l) R{W}) * [act(l-1) > 0].
            float* dst = l == 2 ? u : frozen ? mem.ract(l - 1) : mem.rd(l - 1);
            bool adds = k >= 0 && !is_first && (frozen || l == 2);
            End down{dst, below.ld};
            down.mask = act.data, down.old = adds ? dst : nullptr, down.old_ld = below.ld;
            product<true, false>(n, below.width, own.width, [=](auto& tile) {
                tile.add(d, Rows{rw, below.ld}, both);
                tile.scale(by);
                tile.add(rd, Rows{w, below.ld}, own.width);
            }, down);
            // v += rd(l)^T act(l-1) + d(l)^T R{act(l-1)}, and the bias's column sums.
            float* v = gradient(now, l);
            End end{v, below.ld};
            end.old = rw, end.old_ld = below.ld;
            product<false, false>(own.width, below.width, n, [=](auto& tile) {
                tile.add(rd, act, rows);
                tile.add(d, ract, rows_of_both);
            }, end, true);
            int bias = own.width * below.ld;
            column_sums(n, own.width, rd.data, own.ld, [=](int j, float sum) { v[bias + j] = rw[bias + j] + sum; });
            if (l > to) __syncthreads();
        }
        if (last == 1) {
            const float* rd = mem.rd(1);
            each(n, one.width, [=](int i, int j) {
                int at = i * one.ld + j;
                u[at] = is_first ? rd[at] : u[at] + rd[at];
            });
        }
        __syncthreads();
    }

    // `by` times `src` (u or C; null: zeros) to where Z_0 stood, its column sums beside those of eps, and the head's gradient.
    DEVICE void finish(const float* src, float by, bool has_eps, int v, float* row) const {
        Layer one = net(1);
        int h = one.width, ld = one.ld;
        float* dst = z;
        each(n, h, [=](int i, int j) { dst[i * h + j] = src ? by * src[i * ld + j] : 0; });
        if (!has_eps) {
            float* eps = z_query;
            each(m, h, [=](int i, int j) { eps[i * h + j] = 0; });
        }
        column_sums(src ? n : 0, h, src, ld, [=](int j, float sum) { row[j] = has_eps ? row[j] + sum : by * sum; });
        const float *body = mem.v(0), *moved = mem.v(v);
        bool is_frozen = frozen;
        int last = net.layers;
        net.each_weight([=](int l, int at, int dense) { row[h + dense] = (is_frozen && l < last ? body : moved)[at]; });
        __syncthreads();
    }

    // Whether every number of `row` is finite, in every thread: x - x is 0 or NaN.
    DEVICE bool finite(const float* row, int len) const {
        float zero = 0;
        for (int i = threadIdx.x; i < len; i += blockDim.x) zero += row[i] - row[i];
        zero = warp_sum(zero);
        if (lane_id() == 0) mem.losses()[warp_id()] = zero;
        __syncthreads();
        zero = 0;
        for (int i = 0; i < (int)(blockDim.x / WARP); i++) zero += mem.losses()[i];
        return zero == 0;
    }
};

// Block t is episode t: rows support_rows[t] .. support_rows[t+1] of z, labels and Gram matrices, and so for the queries; rows of
// Gram matrices are gram_ld numbers apart. In: Z_0 in z, Z'_0 in z_query, head. Out: u in z, eps in z_query, query outputs,
// row t of `rows` (first bias, head) and whether it is finite, the mean query loss.
KERNEL __launch_bounds__(512, 1) episode_shared(const int* widths, int layers, const int* support_rows,
                                                const int* query_rows, const int* labels, const int* query_labels,
                                                const float* grams, const float* grams_query, int gram_ld, float* z,
                                                float* z_query, const float* head, int steps, float lr, int order,
                                                int last_layer, float* out, float* rows, int row_len, float* losses,
                                                u32* finite) {
    extern __shared__ __align__(16) float base[];
    if (threadIdx.x == 0) describe(widths, layers, (Layer*)base);
    __syncthreads();
    Net net{(const Layer*)base, layers};
    int t = blockIdx.x, s0 = support_rows[t], q0 = query_rows[t], h = net(1).width, outputs = net(layers).width;
    int n = support_rows[t + 1] - s0, m = query_rows[t + 1] - q0;
    bool frozen = last_layer && layers > 1, second = order == SECOND;
    if (n == 0) steps = 0;
    bool moves = !frozen && steps > 0;
    Places* places = (Places*)(base + 4 * (layers + 1));
    if (threadIdx.x == 0) *places = Places(net, n, m, second ? steps : 0, frozen);
    __syncthreads();
    Memory mem{(float*)(places + 1), places, net, n, m};
    Episode e{mem, net, n, m, lr, frozen, labels + s0, query_labels + q0, z + (i64)s0 * h, z_query + (i64)q0 * h};
    // Gaps between rows are read beside the numbers, and never used.
    for (int i = 4 * threadIdx.x; i < places->end; i += 4 * blockDim.x) *(float4*)(mem.base + i) = make_float4(0, 0, 0, 0);
    __syncthreads();
    float* phi = mem.phi(0);
    net.each_weight([=](int, int at, int dense) { phi[at] = head[dense]; });
    if (moves) {
        int ld = stride(n);
        const float *gram = grams + (i64)s0 * gram_ld, *gram_query = grams_query + (i64)q0 * gram_ld;
        each(n, n, [=](int i, int j) { mem.gram()[i * ld + j] = gram[i * gram_ld + j]; });
        each(m, n, [=](int i, int j) { mem.gram_query()[i * ld + j] = gram_query[i * gram_ld + j]; });
    }
    __syncthreads();
    float* row = rows + (i64)t * row_len;
    // Slots of the head: all are kept, or two take turns.
    auto slot = [=](int k) { return second ? k : k % 2; };
    bool back = order == SECOND || order == FIRST;
    for (int k = frozen && steps > 0 ? -1 : 0; k <= steps; k++) {
        bool is_query = k == steps, is_body = k < 0;
        int from = frozen && !is_query && !is_body ? layers : 1, to = is_body ? layers - 1 : layers, at = larger(k, 0);
        e.pass(second ? at : 0, slot(at), slot(at + 1), is_query, from, to, k <= 0 || !moves, out + (i64)q0 * outputs,
               back || !is_query);
    }
    if (warp_id() == 0) {
        float sum = 0;
        for (int i = lane_id(); i < m; i += WARP) sum += mem.losses()[i];
        sum = warp_sum(sum);
        if (lane_id() == 0) losses[t] = m > 0 ? sum / m : 0;
    }
    if (order == EVALUATE) return;
    const float* src = nullptr;
    int v = 0;
    if (back) e.leave_eps(row);
    if (second && steps > 0) {
        if (!frozen) e.begin_sweep();
        else __syncthreads();
        for (int k = steps - 1; k >= (frozen && layers > 2 ? -1 : 0); k--) {
            if (k < 0) e.sweep(k, false, 0, 0);
            else e.sweep(k, k == steps - 1, v, v ^ 1), v ^= 1;
        }
        src = mem.u();
    }
    if (order == DISPLACEMENT) {
        // theta - theta_S: W_0 - (W_0 - a C^T X) = a C^T X.
        const float* end = mem.phi(slot(steps));
        float* moved = mem.v(0);
        net.each_weight([=](int l, int at, int dense) {
            moved[at] = frozen && l < layers ? 0 : head[dense] - end[at];
        });
        src = moves ? mem.c() : nullptr;
        __syncthreads();
    }
    e.finish(src, order == DISPLACEMENT ? lr : 1.0f, back, v, row);
    bool good = e.finite(row, row_len);
    if (threadIdx.x == 0) finite[t] = good;
}
