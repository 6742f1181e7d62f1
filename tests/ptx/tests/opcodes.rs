//! Each family of opcodes against values computed in another way.

mod support;

use support::{lanes, load, op_f32, op32, op64, result, run_on};

const SAMPLES: [u32; 9] = [0, 1, 2, 7, 31, 0x7fff_ffff, 0x8000_0000, 0xffff_fff9, 0xdead_beef];

#[test]
fn integer_arithmetic() {
    for a in SAMPLES {
        assert_eq!(op32("popc.b32", &[a]), a.count_ones());
        assert_eq!(op32("clz.b32", &[a]), a.leading_zeros());
        assert_eq!(op32("brev.b32", &[a]), a.reverse_bits());
        assert_eq!(op32("neg.s32", &[a]), a.wrapping_neg());
        assert_eq!(op32("not.b32", &[a]), !a);
        assert_eq!(op32("abs.s32", &[a]), (a as i32).wrapping_abs() as u32);
        for b in [1, 7, 0xffff_ffff, 0x8000_0000] {
            let (x, y) = (a as i32, b as i32);
            assert_eq!(op32("add.s32", &[a, b]), a.wrapping_add(b));
            assert_eq!(op32("sub.s32", &[a, b]), a.wrapping_sub(b));
            assert_eq!(op32("mul.lo.s32", &[a, b]), a.wrapping_mul(b));
            assert_eq!(op32("mul.hi.u32", &[a, b]), ((u64::from(a) * u64::from(b)) >> 32) as u32);
            assert_eq!(op32("mul.hi.s32", &[a, b]), ((i64::from(x) * i64::from(y)) >> 32) as u32);
            assert_eq!(op32("div.u32", &[a, b]), a / b);
            assert_eq!(op32("div.s32", &[a, b]), x.wrapping_div(y) as u32);
            assert_eq!(op32("rem.s32", &[a, b]), x.wrapping_rem(y) as u32);
            assert_eq!(op32("min.s32", &[a, b]), x.min(y) as u32);
            assert_eq!(op32("max.u32", &[a, b]), a.max(b));
            assert_eq!(op32("mad.lo.s32", &[a, b, 5]), a.wrapping_mul(b).wrapping_add(5));
            assert_eq!(op32("add.sat.s32", &[a, b]), x.saturating_add(y) as u32);
            assert_eq!(op32("sad.s32", &[a, b, 3]), x.abs_diff(y).wrapping_add(3));
            let wide = result(&format!("mov.u32 %r1, {a:#x}; mul.wide.s32 %rd1, %r1, {b:#x};"));
            assert_eq!(wide, (i64::from(x) * i64::from(y)) as u64);
        }
    }
    assert_eq!(op64("mul.hi.u64", &[u64::MAX, 12345]), 12344);
    assert_eq!(op32("bfind.u32", &[0x00f0_0000]), 23);
    assert_eq!(op32("bfind.s32", &[0xffff_fffe]), 0);
    assert_eq!(op32("bfind.shiftamt.u32", &[0x00f0_0000]), 8);
    assert_eq!(op32("bfind.u32", &[0]), 0xffff_ffff);
}

#[test]
fn bits_and_shifts() {
    let (a, b, c) = (0xf0f0_1234u32, 0xcc55_aa01u32, 0x1357_9bdfu32);
    for table in [0x80u32, 0x96, 0xca, 0xfe, 0x1b] {
        let want = (0..32).fold(0u32, |out, i| {
            let index = (a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1;
            out | (table >> index & 1) << i
        });
        assert_eq!(op32("lop3.b32", &[a, b, c, table]), want);
    }
    for n in [0, 1, 31, 32, 33, 255] {
        assert_eq!(op32("shl.b32", &[a, n]), a.checked_shl(n).unwrap_or(0));
        assert_eq!(op32("shr.u32", &[a, n]), a.checked_shr(n).unwrap_or(0));
        assert_eq!(op32("shr.s32", &[a, n]), ((a as i32) >> n.min(31)) as u32);
        let both = u64::from(b) << 32 | u64::from(a);
        assert_eq!(op32("shf.l.wrap.b32", &[a, b, n]), (both << (n % 32) >> 32) as u32);
        assert_eq!(op32("shf.r.wrap.b32", &[a, b, n]), (both >> (n % 32)) as u32);
        assert_eq!(op32("shf.r.clamp.b32", &[a, b, n]), (both >> n.min(32)) as u32);
    }
    assert_eq!(op64("shr.s64", &[1 << 63, 63]), u64::MAX);
    assert_eq!(op32("bfe.u32", &[a, 4, 8]), a >> 4 & 0xff);
    assert_eq!(op32("bfe.s32", &[a, 28, 4]), 0xffff_ffff);
    assert_eq!(op32("bfe.s32", &[a, 24, 20]), 0xffff_fff0);
    assert_eq!(op32("bfi.b32", &[0xab, a, 8, 8]), a & !0xff00 | 0xab00);
    assert_eq!(op32("prmt.b32", &[0x3322_1100, 0x7766_5544, 0x7250]), 0x7722_5500);
    assert_eq!(op32("prmt.b32", &[0x80, 0, 0x0008]), 0x8080_80ff);
    assert_eq!(op32("dp4a.s32.s32", &[0x01ff_0203, 0x0102_0304, 10]), 10 + 1 - 2 + 6 + 12);
}

#[test]
fn floats_round_as_asked() {
    let (a, b, c) = (1.0 + f32::EPSILON, 1.0 - f32::EPSILON / 2.0, -1.0f32);
    assert_eq!(op_f32("fma.rn.f32", &[a, b, c]), a.mul_add(b, c));
    assert_ne!(op_f32("fma.rn.f32", &[a, b, c]), a * b + c);
    let third = [1.0f32, 3.0];
    assert_eq!(op_f32("div.rn.f32", &third), 1.0 / 3.0);
    let tiny = 2f32.powi(-40);
    assert_eq!(op_f32("add.rm.f32", &[1.0, -tiny]), 1.0f32.next_down());
    assert_eq!(op_f32("add.rn.f32", &[1.0, -tiny]), 1.0);
    assert_eq!(op_f32("add.rp.f32", &[1.0, tiny]), 1.0f32.next_up());
    assert_eq!(op_f32("add.rz.f32", &[-1.0, tiny]), -(1.0f32.next_down()));
    assert_eq!(op_f32("fma.rm.f32", &[1.0, 1.0, -2f32.powi(-80)]), 1.0f32.next_down());
    assert_eq!(op_f32("mul.rp.f32", &[a, a]), (a * a).next_up());
    assert_eq!(op_f32("mul.ftz.f32", &[f32::MIN_POSITIVE, 0.5]), 0.0);
    assert_eq!(op_f32("mul.f32", &[f32::MIN_POSITIVE, 0.5]), f32::MIN_POSITIVE / 2.0);
    assert_eq!(op_f32("add.sat.f32", &[0.75, 0.75]), 1.0);
    assert_eq!(op_f32("max.f32", &[f32::NAN, -3.0]), -3.0);
    assert!(op_f32("max.NaN.f32", &[f32::NAN, -3.0]).is_nan());
    assert!(op_f32("min.f32", &[0.0, -0.0]).is_sign_negative());
    assert_eq!(op_f32("copysign.f32", &[-1.0, 2.5]), -2.5);
    for x in [0.3f32, 2.0, 17.5] {
        let near = |got: f32, want: f64| assert!((f64::from(got) - want).abs() <= 1e-7 * want.abs(), "{got} {want}");
        let w = f64::from(x);
        near(op_f32("sqrt.rn.f32", &[x]), w.sqrt());
        near(op_f32("rsqrt.approx.f32", &[x]), w.sqrt().recip());
        near(op_f32("rcp.approx.ftz.f32", &[x]), w.recip());
        near(op_f32("ex2.approx.f32", &[x]), 2f64.powf(w));
        near(op_f32("lg2.approx.f32", &[x]), w.ln() / 2f64.ln());
        near(op_f32("tanh.approx.f32", &[x]), 1.0 - 2.0 / ((2.0 * w).exp() + 1.0));
    }
    let d = result("fma.rn.f64 %d1, 0d3FF0000000000001, 0d3FF0000000000001, 0dBFF0000000000000;\nmov.b64 %rd1, %d1;");
    assert_eq!(f64::from_bits(d), 2.0 * f64::EPSILON + f64::EPSILON * f64::EPSILON);
}

#[test]
fn sixteen_bit_floats() {
    // 1.5 and -2.0 as f16 (lower) and bf16.
    assert_eq!(op32("add.f16x2", &[0x3e00_c000, 0xc000_3e00]), 0xb800_b800);
    assert_eq!(op32("fma.rn.bf16x2", &[0x3fc0_c000, 0x3fc0_3fc0, 0x3f80_3f80]), 0x4050_c000);
    assert_eq!(op32("max.bf16x2", &[0x3fc0_c000, 0x3f80_3f80]), 0x3fc0_3f80);
}

#[test]
fn conversions() {
    let from_f32 = |op: &str, x: f32| {
        result(&format!("mov.f32 %f1, 0f{:08X}; {op} %r1, %f1; cvt.u64.u32 %rd1, %r1;", x.to_bits())) as u32
    };
    for x in [0.5f32, 1.5, -2.5, 2.7, -2.7] {
        assert_eq!(from_f32("cvt.rni.s32.f32", x), x.round_ties_even() as i32 as u32);
        assert_eq!(from_f32("cvt.rzi.s32.f32", x), x.trunc() as i32 as u32);
        assert_eq!(from_f32("cvt.rmi.s32.f32", x), x.floor() as i32 as u32);
        assert_eq!(from_f32("cvt.rpi.s32.f32", x), x.ceil() as i32 as u32);
    }
    assert_eq!(from_f32("cvt.rzi.u32.f32", -3.0), 0);
    assert_eq!(from_f32("cvt.rzi.s32.f32", 3e9), 0x7fff_ffff);
    assert_eq!(from_f32("cvt.rzi.s32.f32", f32::NAN), 0);
    assert_eq!(from_f32("cvt.rna.tf32.f32", f32::from_bits(0x3f80_1000)), 0x3f80_2000);
    let to_f32 = |op: &str, x: u32| {
        let body = format!("mov.u32 %r1, {x:#x}; {op} %f1, %r1; mov.b32 %r2, %f1; cvt.u64.u32 %rd1, %r2;");
        f32::from_bits(result(&body) as u32)
    };
    assert_eq!(to_f32("cvt.rn.f32.s32", 0xffff_ff85), -123.0);
    assert_eq!(to_f32("cvt.rn.f32.u32", 0xffff_ff7f), 4_294_967_040.0);
    assert_eq!(to_f32("cvt.rz.f32.u32", 0xffff_ffff), 4_294_967_040.0);
    assert_eq!(to_f32("cvt.rp.f32.u32", 0x0100_0001), 16_777_218.0);
    assert_eq!(op_f32("cvt.sat.f32.f32", &[1.75]), 1.0);
    assert_eq!(op_f32("cvt.rni.f32.f32", &[2.5]), 2.0);
    let half = |op: &str, x: f32| result(&format!("{op} %h1, 0f{:08X}; cvt.u64.u16 %rd1, %h1;", x.to_bits())) as u16;
    // 1/3 is 0x3eaaaaab: the bf16 is rounded up, or cut off.
    assert_eq!(half("cvt.rn.bf16.f32", 1.0 / 3.0), 0x3eab);
    assert_eq!(half("cvt.rz.bf16.f32", 1.0 / 3.0), 0x3eaa);
    assert_eq!(half("cvt.rn.f16.f32", 1.0 / 3.0), 0x3555);
    assert_eq!(half("cvt.rn.f16.f32", 1e6), 0x7c00);
    assert_eq!(result("cvt.rn.bf16x2.f32 %r1, 0f40000000, 0fBFC00000; cvt.u64.u32 %rd1, %r1;"), 0x4000_bfc0);
    assert_eq!(
        result("mov.b16 %h1, 0xc100; cvt.f32.f16 %f1, %h1; cvt.f64.f32 %d1, %f1; mov.b64 %rd1, %d1;"),
        (-2.5f64).to_bits()
    );
    assert_eq!(result("mov.u32 %r1, 0xfffffff0; cvt.s64.s32 %rd1, %r1;"), 0xffff_ffff_ffff_fff0);
    assert_eq!(result("mov.u32 %r1, 0x1f0; cvt.s8.s32 %r2, %r1; cvt.s64.s32 %rd1, %r2;"), 0xffff_ffff_ffff_fff0);
    assert_eq!(result("mov.u32 %r1, 0x1f0; cvt.sat.u8.u32 %r2, %r1; cvt.u64.u32 %rd1, %r2;"), 255);
    assert_eq!(
        result("mov.b64 %rd2, 0x1234567800000009; mov.b64 {%r1, %r2}, %rd2; mov.b64 %rd1, {%r2, %r1};"),
        0x9_1234_5678
    );
}

#[test]
fn predicates_and_choice() {
    let set = |op: &str, a: &str, b: &str| result(&format!("{op} %p1, {a}, {b}; selp.b64 %rd1, 1, 0, %p1;")) == 1;
    assert!(set("setp.lt.s32", "-1", "1") && !set("setp.lt.u32", "-1", "1") && set("setp.hi.u32", "-1", "1"));
    let nan = "0f7FC00000";
    assert!(!set("setp.ne.f32", nan, "0f00000000") && set("setp.neu.f32", nan, "0f00000000"));
    assert!(!set("setp.ge.f32", nan, nan) && set("setp.ltu.f32", nan, nan) && set("setp.nan.f32", nan, nan));
    let both =
        "mov.pred %p3, true; setp.eq.and.s32 %p1|%p2, 1, 1, !%p3; selp.b64 %rd2, 1, 0, %p1; selp.b64 %rd3, 2, 0, %p2;";
    assert_eq!(result(&format!("{both} add.s64 %rd1, %rd2, %rd3;")), 0);
    assert_eq!(result("set.lt.u32.s32 %r1, -1, 0; cvt.u64.u32 %rd1, %r1;"), 0xffff_ffff);
    assert_eq!(result("slct.u32.s32 %r1, 3, 4, -1; cvt.u64.u32 %rd1, %r1;"), 4);
    assert_eq!(result("testp.infinite.f32 %p1, 0f7F800000; not.pred %p2, %p1; selp.b64 %rd1, 7, 9, %p2;"), 9);
}

#[test]
fn lanes_part_and_meet_again() {
    // The Collatz length of each thread's number: every lane leaves the loop at another time.
    let body = "add.u32 %r2, t, 1; mov.u32 %r1, 0;\nL: setp.eq.u32 %p1, %r2, 1; @%p1 bra DONE; add.u32 %r1, %r1, 1;\n\
        and.b32 %r3, %r2, 1; setp.eq.u32 %p2, %r3, 0; @%p2 bra EVEN; mad.lo.u32 %r2, %r2, 3, 1; bra.uni L;\n\
        EVEN: shr.u32 %r2, %r2, 1; bra L;\nDONE: bar.warp.sync -1; activemask.b32 %r4; add.u32 %r1, %r1, %r4; add.u32 %r1, %r1, 1;";
    let collatz = |mut n: u32| {
        let mut steps = 0;
        while n != 1 {
            n = if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 };
            steps += 1;
        }
        steps
    };
    assert_eq!(lanes(body, 64).unwrap(), (1..=64).map(collatz).collect::<Vec<_>>());
    let table = "and.b32 %r2, t, 3;\nT: .branchtargets A, B, A, C;\nbrx.idx %r2, T;\nA: mov.u32 %r1, 10; bra E;\n\
        B: mov.u32 %r1, 20; bra E;\nC: mov.u32 %r1, 30;\nE:";
    assert_eq!(lanes(table, 8).unwrap(), [10, 20, 10, 30, 10, 20, 10, 30]);
    // Labels and registers of inline assembly belong to its braces.
    let scopes = "mov.u32 %r1, 1; { .reg .b32 x; mov.b32 x, 5; L: add.u32 x, x, -1; setp.ne.u32 %p1, x, 2; @%p1 bra L; add.u32 %r1, %r1, x; }\n\
        { .reg .b32 x; mov.b32 x, 9; bra L; add.u32 x, x, 1; L: add.u32 %r1, %r1, x; }";
    assert_eq!(lanes(scopes, 1).unwrap(), [12]);
}

#[test]
fn shuffles_votes_matches_reductions() {
    let shuffle = |mode: &str, b: u32, c: u32| {
        lanes(
            &format!(
                "shfl.sync.{mode}.b32 %r2|%p1, t, {b}, {c:#x}, -1; selp.b32 %r3, 100, 0, %p1; add.u32 %r1, %r2, %r3;"
            ),
            32,
        )
        .unwrap()
    };
    let want = |f: fn(u32) -> Option<u32>| (0..32).map(|l| f(l).map_or(l, |from| from + 100)).collect::<Vec<_>>();
    assert_eq!(shuffle("bfly", 5, 0x1f), want(|l| Some(l ^ 5)));
    assert_eq!(shuffle("up", 3, 0), want(|l| l.checked_sub(3)));
    assert_eq!(shuffle("down", 3, 0x1f), want(|l| Some(l + 3).filter(|&f| f < 32)));
    assert_eq!(shuffle("idx", 9, 0x1f), want(|_| Some(9)));
    // Width 8: segment mask 24.
    assert_eq!(shuffle("down", 2, 0x181f), want(|l| Some(l + 2).filter(|f| f / 8 == l / 8)));
    assert_eq!(shuffle("up", 2, 0x1800), want(|l| Some(l).filter(|l| l % 8 >= 2).map(|l| l - 2)));
    assert_eq!(shuffle("idx", 3, 0x181f), want(|l| Some(l / 8 * 8 + 3)));
    let odd = "and.b32 %r2, t, 1; setp.ne.u32 %p1, %r2, 0;";
    assert_eq!(lanes(&format!("{odd} vote.sync.ballot.b32 %r1, %p1, -1;"), 32).unwrap(), [0xaaaa_aaaa; 32]);
    assert_eq!(
        lanes(&format!("{odd} vote.sync.all.pred %p2, %p1, -1; selp.u32 %r1, 1, 0, %p2;"), 32).unwrap(),
        [0; 32]
    );
    assert_eq!(lanes("redux.sync.add.s32 %r1, t, -1;", 32).unwrap(), [496; 32]);
    assert_eq!(lanes("redux.sync.max.u32 %r1, t, -1;", 32).unwrap(), [31; 32]);
    let want: Vec<u32> = (0..32).map(|l| 0x1111_1111 << (l % 4)).collect();
    assert_eq!(lanes("and.b32 %r2, t, 3; match.any.sync.b32 %r1, %r2, -1;", 32).unwrap(), want);
    assert_eq!(lanes("mov.u32 %r1, %lanemask_lt;", 32).unwrap(), (0..32).map(|l| (1u32 << l) - 1).collect::<Vec<_>>());
}

#[test]
fn barriers_and_shared_memory() {
    // Thread t reads what thread 127 - t wrote.
    let body = ".shared .align 4 .b8 s[512]; mov.u32 %r2, s; mad.lo.u32 %r3, t, 4, %r2; st.shared.b32 [%r3], t; bar.sync 0;\n\
        sub.u32 %r4, 127, t; mad.lo.u32 %r3, %r4, 4, %r2; ld.shared.b32 %r1, [%r3];";
    assert_eq!(lanes(body, 128).unwrap(), (0..128).rev().collect::<Vec<_>>());
    let red = "setp.lt.u32 %p1, t, 70; barrier.cta.red.popc.aligned.u32 %r1, 0, %p1;";
    assert_eq!(lanes(red, 128).unwrap(), [70; 128]);
    // Warps 0 and 1 meet at barrier 1 alone.
    let named = "mov.u32 %r1, 0; setp.ge.u32 %p1, t, 64; @%p1 bra E; bar.sync 1, 64; mov.u32 %r1, 1; E:";
    assert_eq!(lanes(named, 128).unwrap().iter().sum::<u32>(), 64);
    // A warp waits for all 64 threads to arrive at an mbarrier.
    let mbar = ".shared .align 8 .b8 m[8]; .shared .align 4 .b8 s[4]; setp.ne.u32 %p1, t, 0; @%p1 bra A;\n\
        mbarrier.init.shared.b64 [m], 64; A: bar.sync 0; setp.ne.u32 %p1, t, 40; @%p1 bra B; st.shared.b32 [s], 77;\n\
        B: bar.warp.sync -1; mbarrier.arrive.shared::cta.b64 %rd1, [m];\n\
        W: mbarrier.try_wait.parity.shared::cta.b64 %p2, [m], 0; @!%p2 bra W; ld.shared.b32 %r1, [s];";
    assert_eq!(lanes(mbar, 64).unwrap(), [77; 64]);
}

#[test]
fn atomics() {
    let body = "atom.global.add.u32 %r2, [p], 1; red.global.max.s32 [p+4], t; atom.global.cas.b32 %r3, [p+8], 0, 9;\n\
        red.global.add.f32 [p+12], 0f3F000000; red.relaxed.gpu.global.add.u64 [p+16], 4294967296; atom.global.inc.u32 %r4, [p+24], 9;";
    let out = run_on(body, 64, &[0; 32], 0).unwrap();
    let word = |i: usize| u32::from_le_bytes(out[4 * i..][..4].try_into().unwrap());
    assert_eq!([word(0), word(1), word(2), word(4), word(5), word(6)], [64, 63, 9, 0, 64, 64 % 10]);
    assert_eq!(f32::from_bits(word(3)), 32.0);
}

#[test]
fn memory_spaces_and_vectors() {
    // Local memory is a lane's own; generic addresses find it.
    let body = ".local .align 8 .b8 l[16]; mov.u64 %rd1, l; cvta.local.u64 %rd2, %rd1; st.u32 [%rd2+4], t;\n\
        bar.warp.sync -1; ld.local.u32 %r1, [%rd1+4];";
    assert_eq!(lanes(body, 32).unwrap(), (0..32).collect::<Vec<_>>());
    let memory: Vec<u8> = (1..=32).collect();
    let body = "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [p]; st.global.v2.u32 [p+16], {%r4, %r1}; ld.global.s8 %r5, [p+3];\n\
        ld.global.nc.L1::no_allocate.L2::128B.u16 %h1, [p+2]; st.global.u16 [p+24], %h1; st.global.u32 [p+28], -1;";
    let out = run_on(body, 1, &memory, 0).unwrap();
    assert_eq!(out[16..], [13, 14, 15, 16, 1, 2, 3, 4, 3, 4, 27, 28, 255, 255, 255, 255]);
    // Signs are extended to the register's width.
    let body = "st.global.u8 [p], 200; ld.global.s8 %r1, [p]; st.global.b32 [p], %r1;";
    assert_eq!(run_on(body, 1, &[0; 4], 0).unwrap(), (-56i32).to_le_bytes());
}

#[test]
fn cp_async_lands_at_the_wait() {
    let memory: Vec<u8> = (0..64).collect();
    let body = ".shared .align 16 .b8 s[32]; cp.async.cg.shared.global [s], [p], 16; cp.async.commit_group;\n\
        cp.async.ca.shared.global [s+16], [p+16], 8, 4; cp.async.ca.shared.global [s+24], [p+24], 4; cp.async.commit_group;\n\
        cp.async.wait_group 1; ld.shared.v2.b64 {%rd1, %rd2}, [s]; st.global.v2.b64 [p+32], {%rd1, %rd2}; cp.async.wait_all;\n\
        ld.shared.b64 %rd3, [s+16]; ld.shared.b32 %r1, [s+24]; st.global.b64 [p+48], %rd3; st.global.b32 [p+56], %r1;";
    let out = run_on(body, 1, &memory, 0).unwrap();
    assert_eq!(out[32..48], memory[..16]);
    assert_eq!(out[48..60], [16, 17, 18, 19, 0, 0, 0, 0, 24, 25, 26, 27]);
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    let refused = |body: &str, reason: &str| {
        let e = load(body).unwrap_err();
        assert!(e.reason.contains(reason), "{e}");
        assert_eq!(e.line, 15, "{e}");
    };
    refused("frobnicate.b32 %r1, %r2;", "unknown opcode");
    refused("add.s32.wobbly %r1, %r2, %r3;", "unknown type");
    refused("add.wobbly.s32 %r1, %r2, %r3;", "unknown modifier");
    refused("add.s32 %r1, %r2, %r64;", "unknown");
    refused("add.s32 %r1, %r2;", "missing");
    refused("bra NOWHERE;", "no label");
    refused("ld.global.v2.b32 {%r1, %r2, %r3}, [p];", "vector");
    refused("mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f1};", "form of mma");
}
