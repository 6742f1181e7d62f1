//! What `ptxas` reports about each kernel under `--ptxas-options=-v`, out of NVRTC's log.

/// One kernel's use of the machine: registers of a thread; bytes of a thread (stack, spills) and of a block (shared).
#[derive(Debug, Default)]
pub struct Resources {
    pub kernel: String,
    pub registers: u32,
    pub stack: u32,
    pub spill_stores: u32,
    pub spill_loads: u32,
    pub shared: u32,
}

/// The number before `unit`, as in `72 registers`; 0 where it isn't named.
fn before(line: &str, unit: &str) -> u32 {
    let Some(end) = line.find(unit) else { return 0 };
    let digits = line[..end].trim_end().rsplit(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|d| d.parse().ok()).unwrap_or(0)
}

/// All kernels of a log, by name. Properties of device functions that were not inlined stand between other lines and
/// are passed over: a kernel's own follow its `Compiling entry function`.
pub fn resources(log: &str) -> Vec<Resources> {
    let mut found: Vec<Resources> = vec![];
    let mut of_kernel = false;
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_string();
            found.push(Resources { kernel, ..Resources::default() });
        }
        let Some(last) = found.last_mut() else { continue };
        if let Some((_, name)) = line.split_once("Function properties for ") {
            of_kernel = name.trim() == last.kernel;
        } else if of_kernel && line.contains("bytes stack frame") {
            last.stack = before(line, " bytes stack frame");
            last.spill_stores = before(line, " bytes spill stores");
            last.spill_loads = before(line, " bytes spill loads");
        } else if line.contains(": Used ") {
            last.registers = before(line, " registers");
            last.shared = before(line, " bytes smem");
        }
    }
    found.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    found
}
