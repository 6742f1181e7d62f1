//! Every `kernels/*.cu` becomes, for each architecture, a CUBIN and a PTX text in `OUT_DIR`, and a row of the table that
//! `src/cuda/module.rs` includes: names, images and what `ptxas` says about registers, spills and shared memory. A file with
//! an architecture in its name, as `gemm.sm_90a.cu`, is compiled for that one alone.

#[path = "nvrtc.rs"]
mod nvrtc;
#[path = "ptxas.rs"]
mod ptxas;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, process, thread};

use nvrtc::{Header, Nvrtc};

/// A100, H100 (with its own instructions) and B200; 8.x and 10.x run the first and last too.
const ARCHS: &str = "sm_80,sm_90a,sm_100";

/// Prints each line as an error of the build, and ends it.
fn fail(message: &str) -> ! {
    message.lines().for_each(|line| println!("cargo::error={line}"));
    process::exit(1);
}

/// Compiles all kernels, or fails the build with what to do.
pub fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-env-changed=METAGLOT_CUDA_ARCHS");
    nvrtc::VARIABLES.iter().for_each(|name| println!("cargo::rerun-if-env-changed={name}"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR"));
    let nvrtc = Nvrtc::find().unwrap_or_else(|message| fail(&message));
    let archs = env::var("METAGLOT_CUDA_ARCHS").unwrap_or_else(|_| ARCHS.into());
    let headers = with_extension("cuh").iter().map(|path| Header::read(path)).collect::<Vec<_>>();
    let (major, minor) = nvrtc.version;
    let mut table = format!("static NVRTC_VERSION: (i32, i32) = ({major}, {minor});\n");
    table.push_str("static IMAGES: &[Image] = &[\n");
    let names = archs.split(',').map(str::trim).filter(|arch| !arch.is_empty());
    let sources = with_extension("cu");
    let jobs = names.flat_map(|arch| sources.iter().map(move |source| (source, arch)));
    let jobs = jobs.filter(|(source, arch)| is_for(source, arch)).collect::<Vec<_>>();
    // A file and architecture a thread: the compiler serves several at once.
    let rows = thread::scope(|scope| {
        let start = |&(source, arch): &(&PathBuf, &str)| {
            let (source, arch, nvrtc, headers, out) = (source.clone(), arch.to_string(), &nvrtc, &headers, &out);
            scope.spawn(move || compile(nvrtc, &source, &arch, headers, out))
        };
        let running = jobs.iter().map(start).collect::<Vec<_>>();
        running.into_iter().map(|job| job.join().expect("a compilation panicked")).collect::<String>()
    });
    table.push_str(&rows);
    table.push_str("];\n");
    write(&out.join("kernels.rs"), table.as_bytes());
}

/// The files of `kernels/` that end so, in the order of their names.
fn with_extension(extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("kernels").unwrap_or_else(|e| fail(&format!("kernels: {e}")));
    let mut paths = entries.filter_map(|entry| entry.ok().map(|e| e.path())).collect::<Vec<_>>();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

/// The file's name without `.cu`.
fn stem(source: &Path) -> &str {
    source.file_stem().and_then(|s| s.to_str()).unwrap_or_else(|| fail("kernels: a name is not UTF-8"))
}

/// Whether a file is to be compiled for an architecture: unless its name names another.
fn is_for(source: &Path, arch: &str) -> bool {
    stem(source).split_once('.').is_none_or(|(_, only)| only == arch)
}

/// One file for one architecture: writes both images and gives the table's row. A file that was compiled from the same text by
/// the same compiler is not compiled again: all together take minutes.
fn compile(nvrtc: &Nvrtc, source: &Path, arch: &str, headers: &[Header], out: &Path) -> String {
    let stem = stem(source);
    let file = |extension: &str| out.join(format!("{stem}.{arch}.{extension}"));
    let text = fs::read_to_string(source).unwrap_or_else(|e| fail(&format!("{}: {e}", source.display())));
    let included = headers.iter().map(Header::text).collect::<String>();
    let made_from = format!("{:?} {:?}\n{text}{included}", nvrtc.version, nvrtc::options(arch));
    let is_current = fs::read_to_string(file("from")).is_ok_and(|old| old == made_from);
    if !is_current {
        let compiled = nvrtc.compile(source, &text, arch, headers).unwrap_or_else(|log| fail(&log));
        write(&file("cubin"), &compiled.cubin);
        write(&file("ptx"), compiled.ptx.as_bytes());
        write(&file("log"), compiled.log.as_bytes());
        // Last: what is written above is whole.
        write(&file("from"), made_from.as_bytes());
    }
    let log = fs::read_to_string(file("log")).unwrap_or_else(|e| fail(&format!("{}: {e}", file("log").display())));
    let mut row = format!("    Image {{ stem: {stem:?}, arch: {arch:?},\n");
    let _ = writeln!(row, "        cubin: include_bytes!({:?}),", file("cubin"));
    let _ = writeln!(row, "        ptx: include_str!({:?}),\n        kernels: &[", file("ptx"));
    for r in ptxas::resources(&log) {
        let _ = writeln!(
            row,
            "            Resources {{ kernel: {:?}, registers: {}, stack: {}, spill_stores: {}, spill_loads: {}, shared: {} }},",
            r.kernel, r.registers, r.stack, r.spill_stores, r.spill_loads, r.shared
        );
    }
    row.push_str("        ] },\n");
    row
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|e| fail(&format!("{}: {e}", path.display())));
}
