//! Shared code compiled for AVX-512 F, BW, DQ and VL.

crate::cpu::entries::entries!("AVX-512", "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
