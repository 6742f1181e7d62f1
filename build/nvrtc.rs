//! Finds NVRTC, NVIDIA's compiler as a library, and compiles one file with it.

use std::ffi::{CString, OsString, c_char};
use std::path::{Path, PathBuf};
use std::{env, fs, mem, ptr};

use cudarc::nvrtc::{result, sys};

/// What is asked where NVRTC lies, in this order; the loader's own path comes last.
pub const VARIABLES: [&str; 5] = ["NVRTC_PATH", "CUDA_PATH", "CUDA_HOME", "VIRTUAL_ENV", "CONDA_PREFIX"];

const MISSING: &str = "feature `cuda`: NVRTC, the compiler for kernels/*.cu, was not found.
Install it with `pip install nvidia-cuda-nvrtc` into an active virtual environment (VIRTUAL_ENV or CONDA_PREFIX is looked at),
or name its library or folder in NVRTC_PATH, or a CUDA toolkit in CUDA_PATH. No GPU or driver is needed to build.";

/// A header that sources include by its file name.
pub struct Header {
    name: CString,
    text: CString,
}

impl Header {
    /// Reads one.
    pub fn read(path: &Path) -> Self {
        let name = path.file_name().expect("a file in kernels/").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).unwrap_or_else(|e| super::fail(&format!("{}: {e}", path.display())));
        Self { name: c_string(name), text: c_string(text) }
    }

    /// What it holds.
    pub fn text(&self) -> &str {
        self.text.to_str().unwrap_or_default()
    }
}

/// What a source became.
pub struct Compiled {
    pub cubin: Vec<u8>,
    pub ptx: String,
    pub log: String,
}

/// What the compiler is told.
pub fn options(arch: &str) -> [String; 3] {
    [format!("--gpu-architecture={arch}"), "--std=c++17".into(), "--ptxas-options=-v".into()]
}

/// The loaded compiler.
pub struct Nvrtc {
    pub version: (i32, i32),
}

fn c_string(text: String) -> CString {
    CString::new(text).unwrap_or_else(|_| super::fail("kernels: a source holds a NUL byte"))
}

/// The library under one of the folders where CUDA toolkits and wheels keep it, or the path itself.
fn library_under(root: &Path) -> Option<PathBuf> {
    if root.is_file() {
        return Some(root.to_path_buf());
    }
    let mut folders = ["", "lib64", "lib", "bin", "targets/x86_64-linux/lib"].map(|sub| root.join(sub)).to_vec();
    let pythons = fs::read_dir(root.join("lib")).into_iter().flatten().flatten().map(|e| e.path());
    for python in pythons.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python"))) {
        let packages = python.join("site-packages/nvidia");
        folders.extend(["cu13/lib", "cuda_nvrtc/lib"].map(|sub| packages.join(sub)));
    }
    folders.iter().find_map(|folder| library_in(folder))
}

/// `libnvrtc.so*` (or `nvrtc64*.dll`) in this folder; not its parts, which the library opens itself.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten().map(|e| e.path());
    let mut found = entries.filter(|p| is_nvrtc(p)).collect::<Vec<_>>();
    found.sort();
    found.pop()
}

fn is_nvrtc(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let named = name.starts_with("libnvrtc.so") || (name.starts_with("nvrtc64") && name.ends_with(".dll"));
    named && !name.contains("alt") && !name.contains("builtins")
}

/// Opens the library by its file, for good: a later load by name then finds the one that is open.
fn open(path: &Path) -> Result<(), String> {
    // SAFETY: NVRTC's library has no initialiser that touches this process beyond its own memory.
    let library = unsafe { libloading::Library::new(path) }.map_err(|e| format!("{}: {e}", path.display()))?;
    mem::forget(library);
    Ok(())
}

impl Nvrtc {
    /// The first one that [`VARIABLES`], /usr/local/cuda or the loader leads to.
    pub fn find() -> Result<Self, String> {
        let value = |name: &&str| env::var_os(name).filter(|v: &OsString| !v.is_empty()).map(PathBuf::from);
        let roots = VARIABLES.iter().filter_map(value).chain([PathBuf::from("/usr/local/cuda")]);
        if let Some(path) = roots.into_iter().find_map(|root| library_under(&root)) {
            open(&path)?;
        }
        // SAFETY: opens libraries by name, as above.
        if !unsafe { sys::is_culib_present() } {
            return Err(MISSING.into());
        }
        let (mut major, mut minor) = (0, 0);
        // SAFETY: two integers are written through valid pointers.
        unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().map_err(|e| e.to_string())?;
        Ok(Self { version: (major, minor) })
    }

    /// Compiles `text`, the contents of `source`, for `arch`; the error is the compiler's log, which names file and line.
    pub fn compile(&self, source: &Path, text: &str, arch: &str, headers: &[Header]) -> Result<Compiled, String> {
        let (major, minor) = self.version;
        let explain = |what: String| format!("{} for {arch} (NVRTC {major}.{minor}): {what}", source.display());
        let program = Program::new(&c_string(text.into()), &c_string(source.display().to_string()), headers)
            .map_err(|e| explain(e.to_string()))?;
        // SAFETY: the program is alive.
        let outcome = unsafe { result::compile_program(program.0, &options(arch)) };
        let log = program.log();
        outcome.map_err(|e| explain(format!("{e}\n{log}")))?;
        let images = program.images().map_err(|e| explain(e.to_string()))?;
        Ok(Compiled { cubin: images.0, ptx: images.1, log })
    }
}

/// A program handle, destroyed when dropped.
struct Program(sys::nvrtcProgram);

impl Program {
    fn new(text: &CString, name: &CString, headers: &[Header]) -> Result<Self, result::NvrtcError> {
        let texts = headers.iter().map(|h| h.text.as_ptr()).collect::<Vec<*const c_char>>();
        let names = headers.iter().map(|h| h.name.as_ptr()).collect::<Vec<*const c_char>>();
        let mut program = ptr::null_mut();
        // SAFETY: all strings end with NUL and live through the call, which copies them; both arrays have that length.
        unsafe {
            sys::nvrtcCreateProgram(
                &mut program,
                text.as_ptr(),
                name.as_ptr(),
                headers.len() as i32,
                texts.as_ptr(),
                names.as_ptr(),
            )
        }
        .result()?;
        Ok(Self(program))
    }

    /// Messages of compiler and assembler.
    fn log(&self) -> String {
        // SAFETY: the program is alive.
        let bytes = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
        text_of(bytes)
    }

    /// CUBIN and PTX of a compiled program.
    fn images(&self) -> Result<(Vec<u8>, String), result::NvrtcError> {
        let mut size = 0;
        // SAFETY: the program is alive; the second call writes as many bytes as the first names.
        let cubin = unsafe {
            sys::nvrtcGetCUBINSize(self.0, &mut size).result()?;
            let mut cubin = vec![0u8; size];
            sys::nvrtcGetCUBIN(self.0, cubin.as_mut_ptr().cast()).result()?;
            cubin
        };
        // SAFETY: the program is alive.
        let ptx = unsafe { result::get_ptx(self.0) }?;
        Ok((cubin, text_of(ptx)))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the handle is not used again.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Text up to its NUL.
fn text_of(bytes: Vec<c_char>) -> String {
    let bytes = bytes.into_iter().map(|b| b as u8).take_while(|&b| b != 0).collect::<Vec<u8>>();
    String::from_utf8_lossy(&bytes).into_owned()
}
