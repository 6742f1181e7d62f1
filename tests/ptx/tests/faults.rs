//! One planted error of each kind, each beside the correct form that passes.

mod support;

use ptx_interpreter::{Device, FaultKind, Module};
use support::{kernel, run_on};

/// Runs the body in 64 threads over 256 bytes; the fault's kind and the first word of its instruction.
fn caught(body: &str) -> (FaultKind, String) {
    let fault = run_on(body, 64, &[0; 256], 0).expect_err("nothing caught");
    assert!(fault.line >= 15, "{fault}");
    (fault.kind, fault.text)
}

fn fine(body: &str) {
    run_on(body, 64, &[0; 256], 0).unwrap_or_else(|e| panic!("{e}"));
}

fn expect(body: &str, kind: FaultKind, instruction: &str) {
    let (got, text) = caught(body);
    assert_eq!(got, kind, "{text}");
    assert!(text.starts_with(instruction) || text.contains(&format!(" {instruction}")), "{text}");
}

/// Shared memory `s` of 256 bytes with its address in `%r50`, this thread's word in `%r51`, the other warp's in `%r52`.
const SHARED: &str = ".shared .align 16 .b8 s[256]; mov.u32 %r50, s; mad.lo.u32 %r51, t, 4, %r50; xor.b32 %r2, t, 32; mad.lo.u32 %r52, %r2, 4, %r50;\n";

/// Every word of `s` written, long ago.
const WRITTEN: &str = "st.shared.u32 [%r51], 9; bar.sync 0;\n";

#[test]
fn a_missing_barrier() {
    let with =
        |barrier: &str| format!("{SHARED} {WRITTEN} st.shared.u32 [%r51], t; {barrier} ld.shared.u32 %r1, [%r52];");
    fine(&with("bar.sync 0;"));
    // Whichever warp comes second is stopped: at its write of what the first has read.
    expect(&with("bar.warp.sync -1;"), FaultKind::Race, "st.shared");
    // Written again too early.
    let again = |barrier: &str| format!("{} {barrier} st.shared.u32 [%r51], 5;", with("bar.sync 0;"));
    fine(&again("bar.sync 0;"));
    expect(&again(""), FaultKind::Race, "ld.shared");
}

#[test]
fn out_of_bounds() {
    let global = |offset: i32| format!("mad.wide.u32 %rd1, t, 4, p; ld.global.u32 %r1, [%rd1+{offset}];");
    fine(&global(0));
    expect(&global(4), FaultKind::OutOfBounds, "ld.global");
    expect(&global(-4), FaultKind::OutOfBounds, "ld.global");
    expect("mov.u64 %rd1, 0; st.global.u32 [%rd1], 1;", FaultKind::OutOfBounds, "st.global");
    expect(&format!("{SHARED} st.shared.u32 [%r51+4], t;"), FaultKind::OutOfBounds, "st.shared");
    expect(".local .align 4 .b8 l[8]; mov.u64 %rd1, l; st.local.u32 [%rd1+8], 1;", FaultKind::OutOfBounds, "st.local");
    let mut device = Device::new();
    let p = device.alloc(8);
    assert!(device.free(p) && !device.free(p));
    assert_eq!(device.write(p, &[0]).unwrap_err().kind, FaultKind::OutOfBounds);
}

#[test]
fn misaligned() {
    fine("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [p+16];");
    expect("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [p+8];", FaultKind::Misaligned, "ld.global");
    expect(&format!("{SHARED} st.shared.b64 [%r51], %rd1;"), FaultKind::Misaligned, "st.shared");
}

#[test]
fn memory_that_nothing_wrote() {
    fine(&format!("{SHARED} st.shared.u32 [%r51], 0; ld.shared.u32 %r1, [%r51];"));
    expect(&format!("{SHARED} ld.shared.u32 %r1, [%r51];"), FaultKind::UninitializedShared, "ld.shared");
    let module = Module::parse(&kernel("ld.global.u32 %r1, [p];")).unwrap();
    let mut device = Device::new();
    let (raw, zeroed) = (device.alloc(4), device.alloc_zeroed(4));
    let mut launch = |p: u64| device.launch(&module, "k", [1; 3], [1; 3], 0, &[p.to_le_bytes()], 1);
    assert_eq!(launch(raw).unwrap_err().kind, FaultKind::UninitializedGlobal);
    launch(zeroed).unwrap();
}

#[test]
fn a_missing_wait_for_cp_async() {
    let with = |wait: &str| {
        format!(
            "{SHARED} {WRITTEN} mad.wide.u32 %rd1, t, 4, p; cp.async.ca.shared.global [%r51], [%rd1], 4; cp.async.commit_group; {wait}\n\
             ld.shared.u32 %r1, [%r52];"
        )
    };
    fine(&with("cp.async.wait_group 0; bar.sync 0;"));
    expect(&with("bar.sync 0;"), FaultKind::MissingAsyncWait, "ld.shared");
    expect(&with("cp.async.wait_group 1; bar.sync 0;"), FaultKind::MissingAsyncWait, "ld.shared");
    expect(&with("cp.async.wait_group 0;"), FaultKind::Race, "");
}

#[test]
fn lanes_that_part_before_an_operation_for_all() {
    let odd =
        |inside: &str| format!("and.b32 %r2, t, 1; setp.eq.u32 %p1, %r2, 0; @%p1 bra E; {inside} E: mov.u32 %r3, 0;");
    fine(&odd("shfl.sync.bfly.b32 %r1, t, 2, 0x1f, 0xaaaaaaaa;"));
    expect(&odd("shfl.sync.bfly.b32 %r1, t, 1, 0x1f, -1;"), FaultKind::DivergentSync, "shfl.sync");
    expect(&format!("{} bar.sync 0;", odd("bar.sync 0;")), FaultKind::DivergentSync, "bar.sync");
    expect("setp.lt.u32 %p1, t, 5; @%p1 bar.warp.sync -1;", FaultKind::DivergentSync, "bar.warp");
    // Whole warps may leave before a barrier, and so may lanes.
    fine("setp.lt.u32 %p1, t, 32; @%p1 ret; bar.sync 0;");
    fine("setp.lt.u32 %p1, t, 5; @%p1 ret; bar.sync 0;");
}

#[test]
fn a_wrong_ldmatrix_address() {
    let with = |step: u32| {
        format!(
            "{SHARED} st.shared.u32 [%r51], t; bar.sync 0; and.b32 %r3, t, 15; mad.lo.u32 %r3, %r3, {step}, %r50;\n\
             ldmatrix.sync.aligned.m8n8.x2.shared.b16 {{%r1, %r2}}, [%r3];"
        )
    };
    fine(&with(16));
    expect(&with(8), FaultKind::Misaligned, "ldmatrix");
    expect(&with(32), FaultKind::OutOfBounds, "ldmatrix");
}

#[test]
fn no_end() {
    expect("setp.ge.u32 %p1, t, 32; @%p1 bra E; bar.sync 1, 64; E: bar.sync 2, 64;", FaultKind::Deadlock, "bar.sync");
    expect("trap;", FaultKind::Trap, "trap");
}

#[test]
fn launches_that_no_device_accepts() {
    let text = kernel(".shared .align 4 .b8 s[1024];").replace("out)", "out) .maxntid 64, 1, 1");
    let module = Module::parse(&text).unwrap();
    let mut device = Device::new();
    let arg = device.alloc(4).to_le_bytes();
    let mut launch = |name: &str, block: u32, shared: u32, args: &[&[u8]]| {
        device.launch(&module, name, [1; 3], [block, 1, 1], shared, args, 1).map_err(|f| (f.kind, f.detail))
    };
    launch("k", 64, 226 * 1024, &[&arg]).unwrap();
    for (name, block, shared, args) in [
        ("x", 1, 0, &[&arg[..]][..]),
        ("k", 65, 0, &[&arg]),
        ("k", 0, 0, &[&arg]),
        ("k", 1, 0, &[]),
        ("k", 1, 0, &[&arg[..4]]),
        ("k", 1, 227 * 1024, &[&arg]),
    ] {
        assert_eq!(launch(name, block, shared, args).unwrap_err().0, FaultKind::BadLaunch, "{name} {block} {shared}");
    }
}
