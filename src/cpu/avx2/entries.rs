//! Shared code compiled for AVX2 and FMA.

crate::cpu::entries::entries!("AVX2", "avx2,fma");
