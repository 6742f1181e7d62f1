//! Kernels around a few instructions.
#![allow(dead_code, reason = "each test file uses a part")]

use ptx_interpreter::{Device, Error, Fault, Module};

/// A kernel with registers of every kind; `p` holds its one parameter, an address, and `t` the thread.
pub fn kernel(body: &str) -> String {
    format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 out) {{\n.reg .pred %p<8>;\n\
         .reg .b16 %h<16>;\n.reg .b32 %r<64>;\n.reg .f32 %f<64>;\n.reg .b64 %rd<32>;\n.reg .f64 %d<8>;\n\
         .reg .b64 p;\n.reg .b32 t;\nld.param.u64 p, [out];\nmov.u32 t, %tid.x;\n{body}\nret;\n}}\n"
    )
}

pub fn load(body: &str) -> Result<Module, Error> {
    Module::parse(&kernel(body))
}

/// Runs a body in `threads` threads over memory with the given contents, and returns the memory.
pub fn run_on(body: &str, threads: u32, memory: &[u8], shared: u32) -> Result<Vec<u8>, Fault> {
    let module = load(body).unwrap_or_else(|e| panic!("{e}"));
    let mut out = Vec::new();
    // An order of warps must not matter.
    for seed in 0..3 {
        let mut device = Device::new();
        let p = device.alloc(memory.len());
        device.write(p, memory)?;
        device.launch(&module, "k", [1; 3], [threads, 1, 1], shared, &[p.to_le_bytes()], seed)?;
        let mut now = vec![0; memory.len()];
        device.read(p, &mut now)?;
        assert!(seed == 0 || now == out, "seed {seed} changes the result");
        out = now;
    }
    Ok(out)
}

/// One 64-bit result, stored by the body's last lines as `%rd1`.
pub fn result(body: &str) -> u64 {
    let body = format!("{body}\nst.global.b64 [p], %rd1;");
    let out = run_on(&body, 1, &[0; 8], 0).unwrap_or_else(|e| panic!("{e}"));
    u64::from_le_bytes(out.try_into().unwrap())
}

/// `opcode` applied to 32-bit operands.
pub fn op32(opcode: &str, args: &[u32]) -> u32 {
    let list: String = args.iter().map(|a| format!(", {a:#x}")).collect();
    result(&format!("{opcode} %r1{list};\ncvt.u64.u32 %rd1, %r1;")) as u32
}

/// `opcode` applied to 64-bit operands.
pub fn op64(opcode: &str, args: &[u64]) -> u64 {
    let list: String = args.iter().map(|a| format!(", {a:#x}")).collect();
    result(&format!("{opcode} %rd1{list};"))
}

/// `opcode` applied to f32 operands, given and returned as numbers.
pub fn op_f32(opcode: &str, args: &[f32]) -> f32 {
    let list: String = args.iter().map(|a| format!(", 0f{:08X}", a.to_bits())).collect();
    f32::from_bits(result(&format!("{opcode} %f1{list};\nmov.b32 %r1, %f1;\ncvt.u64.u32 %rd1, %r1;")) as u32)
}

/// One 32-bit value a thread, left by the body in `%r1`.
pub fn lanes(body: &str, threads: u32) -> Result<Vec<u32>, Fault> {
    let body = format!("{body}\nmad.wide.u32 %rd31, t, 4, p;\nst.global.b32 [%rd31], %r1;");
    let out = run_on(&body, threads, &vec![0; 4 * threads as usize], 0)?;
    Ok(out.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect())
}
