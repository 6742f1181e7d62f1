//! What each kernel takes of the machine, against `kernels/resources.csv`: registers, spills and shared memory as the
//! assembler says, tensor-core and asynchronous-copy instructions as `cuobjdump -sass` shows them.
//! `METAGLOT_WRITE_RESOURCES=1` writes the table anew.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use rayon::prelude::*;

use metaglot::cuda::{Image, images, nvrtc_version};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/resources.csv");
const COUNTED: [&str; 4] = ["HMMA", "HGMMA", "LDSM", "LDGSTS"];

/// The folder of the wheels' cuobjdump and nvdisasm in the active environment, or the toolkit's.
fn tools() -> Option<PathBuf> {
    let wheel = |root: PathBuf| {
        let pythons = fs::read_dir(root.join("lib")).into_iter().flatten().flatten().map(|e| e.path());
        pythons.map(|python| python.join("site-packages/nvidia/cu13/bin")).find(|bin| bin.join("cuobjdump").is_file())
    };
    let environment = env::var_os("VIRTUAL_ENV").map(PathBuf::from).and_then(wheel);
    environment.or_else(|| Some(PathBuf::from("/usr/local/cuda/bin")).filter(|bin| bin.join("cuobjdump").is_file()))
}

/// How often each kernel of an image has each counted instruction.
fn counts(image: &Image, tools: &Path) -> HashMap<String, [usize; 4]> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kernels.cubin");
    fs::write(&file, image.cubin).unwrap();
    let path = env::join_paths([tools.to_path_buf(), PathBuf::from("/usr/bin")]).unwrap();
    let output = Command::new(tools.join("cuobjdump")).env("PATH", path).arg("-sass").arg(&file).output().unwrap();
    assert!(output.status.success(), "cuobjdump: {}", String::from_utf8_lossy(&output.stderr));
    let mut found = HashMap::new();
    let mut kernel = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some((_, name)) = line.split_once("Function : ") {
            kernel = name.trim().to_string();
            found.insert(kernel.clone(), [0; 4]);
        }
        for (i, name) in COUNTED.iter().enumerate() {
            if line.split([' ', '.', '\t']).any(|word| word == *name) {
                found.get_mut(&kernel).expect("a function's name stands first")[i] += 1;
            }
        }
    }
    found
}

fn table(tools: &Path) -> String {
    let (major, minor) = nvrtc_version();
    let mut text =
        format!("# NVRTC {major}.{minor}\nkernel,arch,registers,stack,spill_stores,spill_loads,static_shared");
    COUNTED.iter().for_each(|name| write!(text, ",{name}").unwrap());
    text.push('\n');
    let mut rows = vec![];
    let counts: Vec<_> = images().par_iter().map(|image| counts(image, tools)).collect();
    for (image, counts) in images().iter().zip(counts) {
        for r in image.kernels {
            let [hmma, hgmma, ldsm, ldgsts] = counts[r.kernel];
            let spills = format!("{},{},{}", r.stack, r.spill_stores, r.spill_loads);
            let (kernel, arch, registers, shared) = (r.kernel, image.arch, r.registers, r.shared);
            rows.push(format!("{kernel},{arch},{registers},{spills},{shared},{hmma},{hgmma},{ldsm},{ldgsts}\n"));
        }
    }
    rows.sort();
    text + &rows.concat()
}

#[test]
fn no_kernel_spills() {
    for image in images() {
        for r in image.kernels {
            assert_eq!((r.spill_stores, r.spill_loads), (0, 0), "{} on {}", r.kernel, image.arch);
        }
    }
}

#[test]
fn the_table_of_resources_is_what_the_compiler_made() {
    let Some(tools) = tools() else {
        eprintln!("skipped: no cuobjdump; `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`");
        return;
    };
    let made = table(&tools);
    if env::var_os("METAGLOT_WRITE_RESOURCES").is_some() {
        fs::write(TABLE, &made).unwrap();
    }
    let kept = fs::read_to_string(TABLE).unwrap();
    if kept.lines().next() != made.lines().next() {
        eprintln!("skipped: the table is of another compiler: {:?}", kept.lines().next());
        return;
    }
    for (kept, made) in kept.lines().zip(made.lines()) {
        assert_eq!(kept, made, "kernels/resources.csv differs: METAGLOT_WRITE_RESOURCES=1 writes it anew");
    }
    assert_eq!(kept.lines().count(), made.lines().count());
}
