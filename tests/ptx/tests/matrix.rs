//! Matrix operations against plain loops.

mod support;

use ptx_interpreter::FaultKind;
use support::run_on;

/// Small integers, exact in every type and sum.
fn number(i: usize) -> i32 {
    (i * 7 % 11) as i32 - 5
}

/// The upper half of the f32 is the bf16.
fn bf16(x: i32) -> [u8; 2] {
    ((f64::from(x) as f32).to_bits() >> 16).to_le_bytes()[..2].try_into().unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
}

/// `a b^T`, `k` deep, of `a[m][k]` and `b[n][k]`.
fn product(a: &[i32], b: &[i32], m: usize, n: usize, k: usize) -> Vec<f32> {
    let entry = |i: usize| (0..k).map(|p| a[i / n * k + p] * b[i % n * k + p]).sum::<i32>() as f32;
    (0..m * n).map(entry).collect()
}

#[test]
fn ldmatrix_and_mma_multiply_as_loops_do() {
    let (a, b): (Vec<_>, Vec<_>) = ((0..256).map(number).collect(), (0..128).map(|i| number(i + 3)).collect());
    let mut memory: Vec<u8> = a.iter().chain(&b).flat_map(|&x| bf16(x)).collect();
    memory.resize(768 + 512, 0);
    // A[16][16] at s, B[8][16] at s + 512, both in rows of 32 bytes; each lane copies 24 bytes.
    let body = ".shared .align 16 .b8 s[768]; mov.u32 %r50, s; mul.lo.u32 %r1, t, 24; cvt.u64.u32 %rd1, %r1; add.s64 %rd2, p, %rd1;\n\
        add.u32 %r2, %r50, %r1; ld.global.b64 %rd3, [%rd2]; ld.global.b64 %rd4, [%rd2+8]; ld.global.b64 %rd5, [%rd2+16];\n\
        st.shared.b64 [%r2], %rd3; st.shared.b64 [%r2+8], %rd4; st.shared.b64 [%r2+16], %rd5; bar.warp.sync -1;\n\
        and.b32 %r3, t, 15; shr.u32 %r4, t, 4; mad.lo.u32 %r5, %r3, 32, %r50; mad.lo.u32 %r5, %r4, 16, %r5;\n\
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r5];\n\
        and.b32 %r3, t, 7; shr.u32 %r4, t, 3; and.b32 %r4, %r4, 1; mad.lo.u32 %r6, %r3, 32, %r50; mad.lo.u32 %r6, %r4, 16, %r6;\n\
        ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r14, %r15}, [%r6+512]; mov.f32 %f9, 0f3F800000;\n\
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4}, {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%f9, %f9, %f9, %f9};\n\
        shr.u32 %r20, t, 2; and.b32 %r21, t, 3; shl.b32 %r20, %r20, 5; mad.lo.u32 %r20, %r21, 8, %r20; cvt.u64.u32 %rd6, %r20;\n\
        add.s64 %rd6, %rd6, p; st.global.v2.f32 [%rd6+768], {%f1, %f2}; st.global.v2.f32 [%rd6+1024], {%f3, %f4};";
    let out = run_on(body, 32, &memory, 0).unwrap();
    let want: Vec<f32> = product(&a, &b, 16, 8, 16).iter().map(|x| x + 1.0).collect();
    assert_eq!(floats(&out[768..]), want);
}

#[test]
fn tf32_fragments_of_ones_and_indices() {
    // A[row][k] = row + 1 only at k = 5, B[k][n] = n + 1: the product is (row + 1) (n + 1).
    let body = "shr.u32 %r1, t, 2; and.b32 %r2, t, 3; add.u32 %r3, %r1, 1; add.u32 %r4, %r1, 9; cvt.rn.f32.u32 %f1, %r3; cvt.rn.f32.u32 %f2, %r4;\n\
        setp.eq.u32 %p1, %r2, 1; selp.f32 %f3, %f1, 0f00000000, %p1; selp.f32 %f4, %f2, 0f00000000, %p1; mov.b32 %r10, 0; mov.b32 %r12, %f3; mov.b32 %r13, %f4;\n\
        mov.b32 %r14, %f1; mov.f32 %f9, 0f00000000;\n\
        mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f5, %f6, %f7, %f8}, {%r10, %r10, %r12, %r13}, {%r14, %r14}, {%f9, %f9, %f9, %f9};\n\
        mul.lo.u32 %r20, t, 16; cvt.u64.u32 %rd1, %r20; add.s64 %rd1, %rd1, p; st.global.v4.f32 [%rd1], {%f5, %f6, %f7, %f8};";
    let out = floats(&run_on(body, 32, &[0; 512], 0).unwrap());
    for (lane, d) in out.chunks_exact(4).enumerate() {
        let (g, n) = (lane / 4 + 1, 2 * (lane % 4) + 1);
        assert_eq!(d, [g * n, g * (n + 1), (g + 8) * n, (g + 8) * (n + 1)].map(|x| x as f32), "lane {lane}");
    }
}

#[test]
fn transposed_ldmatrix_and_its_inverse() {
    // Element (r, c) is 8 r + c; lane l then holds (2t, g) and (2t + 1, g).
    let fill = ".shared .align 16 .b8 s[256]; mov.u32 %r50, s; shl.b32 %r1, t, 1; add.u32 %r2, %r1, 1; shl.b32 %r2, %r2, 16; or.b32 %r2, %r2, %r1;\n\
        mad.lo.u32 %r3, t, 4, %r50; st.shared.b32 [%r3], %r2; bar.warp.sync -1; and.b32 %r4, t, 7; mad.lo.u32 %r4, %r4, 16, %r50;\n\
        ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r10}, [%r4];";
    let want: Vec<u32> = (0..32).map(|l| (16 * (l % 4) + l / 4) | (16 * (l % 4) + 8 + l / 4) << 16).collect();
    assert_eq!(support::lanes(&format!("{fill} mov.u32 %r1, %r10;"), 32).unwrap(), want);
    let back = format!(
        "{fill} stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%r4+128], {{%r10}}; ld.shared.b32 %r1, [%r3+128];"
    );
    assert_eq!(
        support::lanes(&back, 32).unwrap(),
        (0..32).map(|l| (2 * l) | ((2 * l + 1) << 16)).collect::<Vec<u32>>()
    );
}

/// Columns of the product that is tried.
const COLUMNS: usize = 16;
/// Where B and the results lie in memory; A is at 0.
const B_AT: usize = 8192;
const OUT_AT: usize = 10240;

/// How wgmma's operands lie in shared memory: bytes of a line, 16 without swizzle, and which dimension a line runs along.
#[derive(Clone, Copy, Debug)]
struct Layout {
    width: usize,
    along_k: bool,
}

impl Layout {
    fn all() -> impl Iterator<Item = Self> {
        [16, 32, 64, 128].into_iter().flat_map(|width| [true, false].map(|along_k| Self { width, along_k }))
    }

    /// Leading and stride offset; some that leave no gap, and none that the form doesn't use.
    fn offsets(self) -> [usize; 2] {
        match (self.width, self.along_k) {
            (16, true) => [128, 256],
            (16, false) => [1024, 128],
            (width, true) => [16, 8 * width],
            // 16 places along K: two times 8 lines, then the next rows.
            (width, false) => [16 * width, 8 * width],
        }
    }

    /// Where element (row, k) lies: the canonical layouts of PTX ISA 9.7.15.5.1.2.1.3, in bytes.
    fn place(self, row: usize, k: usize) -> usize {
        let ([leading, stride], width) = (self.offsets(), self.width);
        let t = width / 2;
        let offset = match (width, self.along_k) {
            (16, true) => row % 8 * 16 + row / 8 * stride + k % 8 * 2 + k / 8 * leading,
            (16, false) => row % 8 * 2 + row / 8 * stride + k % 8 * 16 + k / 8 * leading,
            (_, true) => row % 8 * width + row / 8 * stride + k * 2,
            (_, false) => row % t * 2 + row / t * leading + k % 8 * width + k / 8 * stride,
        };
        // Swizzle<B, 4, 3> with 2^B chunks of 16 bytes in a line.
        offset ^ (offset >> 7 & (width / 16 - 1)) << 4
    }

    fn descriptor(self, at: usize) -> usize {
        let kind = [(16, 0), (128, 1), (64, 2), (32, 3)].into_iter().find(|k| k.0 == self.width).unwrap().1;
        let [leading, stride] = self.offsets();
        kind << 62 | (stride / 16) << 32 | (leading / 16) << 16 | (at / 16)
    }

    /// Operands in memory, room for the result, and what it should be: twice the product.
    fn memory(self) -> (Vec<u8>, Vec<f32>) {
        let a: Vec<_> = (0..1024).map(number).collect();
        let b: Vec<_> = (0..16 * COLUMNS).map(|i| number(i * 5 + 1)).collect();
        let mut memory = vec![0; OUT_AT + 64 * COLUMNS * 4];
        for (at, operand) in [(0, &a), (B_AT, &b)] {
            for (i, &x) in operand.iter().enumerate() {
                memory[at + self.place(i / 16, i % 16)..][..2].copy_from_slice(&bf16(x));
            }
        }
        (memory, product(&a, &b, 64, COLUMNS, 16).iter().map(|x| 2.0 * x).collect())
    }

    /// 128 threads copy the operands as they are, fence with `fences`, and multiply twice; `end` stands before the stores.
    fn kernel(self, fences: [&str; 2], end: &str) -> String {
        let copy = |i: usize| {
            format!(
                "ld.global.v2.b64 {{%rd4, %rd5}}, [%rd3+{0}]; st.shared.v2.b64 [%r7+{0}], {{%rd4, %rd5}};",
                2048 * i
            )
        };
        let copies: String = (0..5).map(copy).collect();
        let (a, b, transposed) = (self.descriptor(0), self.descriptor(B_AT), u8::from(!self.along_k));
        let multiply = |first: &str, accumulate: &str| {
            format!(
                "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {{{first}, %f2, %f3, %f4, %f5, %f6, %f7, %f8}}, %rd6, %rd7, \
                 {accumulate}, 1, 1, {transposed}, {transposed};"
            )
        };
        let [proxy, warpgroup] = fences;
        format!(
            ".shared .align 1024 .b8 s[10240]; mov.u32 %r50, s; mad.lo.u32 %r7, t, 16, %r50; mul.wide.u32 %rd3, t, 16; add.s64 %rd3, %rd3, p;\n\
             {copies} {proxy} bar.sync 0; mov.b64 %rd6, {a:#x}; mov.b64 %rd7, {b:#x}; mov.pred %p2, false; mov.pred %p3, true;\n\
             {warpgroup}\n{{ {} }}\nmov.f32 %f9, %f1;\n{}\nwgmma.commit_group.sync.aligned; {end}\n\
             shr.u32 %r20, t, 2; and.b32 %r22, %r20, 24; and.b32 %r20, %r20, 7; shl.b32 %r22, %r22, 1; add.u32 %r20, %r20, %r22;\n\
             and.b32 %r21, t, 3; shl.b32 %r20, %r20, 6; mad.lo.u32 %r20, %r21, 8, %r20; cvt.u64.u32 %rd8, %r20; add.s64 %rd8, %rd8, p;\n\
             st.global.v2.f32 [%rd8+10240], {{%f9, %f2}}; st.global.v2.f32 [%rd8+10752], {{%f3, %f4}};\n\
             st.global.v2.f32 [%rd8+10272], {{%f5, %f6}}; st.global.v2.f32 [%rd8+10784], {{%f7, %f8}};",
            multiply("%f1", "%p2"),
            multiply("%f9", "%p3"),
        )
    }

    fn run(self, fences: [&str; 2], end: &str) -> Result<Vec<u8>, ptx_interpreter::Fault> {
        run_on(&self.kernel(fences, end), 128, &self.memory().0, 0)
    }
}

const FENCES: [&str; 2] = ["fence.proxy.async.shared::cta;", "wgmma.fence.sync.aligned;"];
const WAIT: &str = "wgmma.wait_group.sync.aligned 0;";

#[test]
fn wgmma_multiplies_as_loops_do_in_every_layout() {
    for layout in Layout::all() {
        let out = layout.run(FENCES, WAIT).unwrap_or_else(|e| panic!("{layout:?}: {e}"));
        assert_eq!(floats(&out[OUT_AT..]), layout.memory().1, "{layout:?}");
    }
}

#[test]
fn accumulators_before_the_wait_are_refused() {
    for (layout, end) in Layout::all().zip(["", "wgmma.wait_group.sync.aligned 1;", "mov.f32 %f2, %f2;"]) {
        let fault = layout.run(FENCES, end).unwrap_err();
        assert_eq!(fault.kind, FaultKind::MissingAsyncWait, "{fault}");
        assert!(fault.text.starts_with("st.global"), "{fault}");
    }
}

#[test]
fn operands_that_are_not_fenced_are_refused() {
    let [proxy, warpgroup] = FENCES;
    for fences in [["", warpgroup], [proxy, ""], ["fence.acq_rel.cta;", warpgroup]] {
        for layout in Layout::all() {
            let fault = layout.run(fences, WAIT).unwrap_err();
            assert_eq!(fault.kind, FaultKind::MissingFence, "{fault}");
            assert!(fault.text.starts_with("wgmma.mma_async"), "{fault}");
        }
    }
}
