#!/usr/bin/env bash
# Tests the AVX-512 kernels on a CPU without AVX-512: Bochs emulates a Skylake-X, a Debian kernel boots on it from a CD image,
# its init runs the test programs and writes to the serial port. For Debian 12, as root, in the repository's root:
#
#     tests/avx512_in_bochs.sh [FILTER of the tests in conformance and guard_pages]
#
# Succeeds only if every program had the AVX-512 tables, ran to its end and passed; one in which the filter names no test
# passes. Without a filter two hours may not suffice. WORK: a folder to keep everything in, the log (serial.log) too;
# LIMIT: the seconds the emulator may take.
set -euo pipefail
work=${WORK:-$(mktemp -d)} filter=${1:-}
mkdir -p "$work"/{iso/isolinux,guest/{bin,proc,dev,tmp,t}}
packages=(bochs bochs-term bochsbios busybox-static isolinux syslinux-common xorriso)
dpkg -s "${packages[@]}" >/dev/null 2>&1 ||
    { apt-get update -q && apt-get install -qy --no-install-recommends "${packages[@]}"; }
if [[ ! -e $work/iso/vmlinuz ]]; then
    kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p' | head -1)
    (cd "$work" && apt-get download -q "$kernel" && dpkg-deb -x "$kernel"_*.deb kernel)
    cp "$work"/kernel/boot/vmlinuz* "$work/iso/vmlinuz"
fi

# The programs, and the libraries they load.
programs=$(cargo test --release --no-default-features --lib --test conformance --test guard_pages --no-run 2>&1 |
    tee /dev/stderr | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
for program in $programs; do
    name=$(basename "${program%-*}")
    strip -o "$work/guest/t/$name" "$program"
    for library in $(ldd "$program" | grep -oE '/lib[^ ]+'); do install -D "$library" "$work/guest$library"; done
done

# Bochs 2.7 gives a wrong size for compacted register state, for which Linux would turn AVX off: hence clearcpuid.
cat >"$work/iso/isolinux/isolinux.cfg" <<'END'
default linux
label linux
  kernel /vmlinuz
  append initrd=/initrd.gz console=ttyS0 quiet mitigations=off tsc=reliable lpj=1000000 nosmp noapic panic=-1 clearcpuid=xsaves,xsavec
END
cat >"$work/guest/init" <<END
#!/bin/busybox sh
busybox=/bin/busybox
\$busybox mount -t proc proc /proc
\$busybox mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1 </dev/null
export METAGLOT_TEST_TABLES=avx512
for run in "metaglot exponential" "conformance $filter" "guard_pages $filter"; do
    /t/\$run --nocapture --test-threads=1
    echo "EXIT \$run: \$?"
done
\$busybox sleep 1
\$busybox poweroff -f
END
chmod +x "$work/guest/init"
cp /bin/busybox "$work/guest/bin/"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/iso/isolinux/"
(cd "$work/guest" && find . | busybox cpio -o -H newc | gzip -1) >"$work/iso/initrd.gz"
xorriso -as mkisofs -quiet -o "$work/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
    -boot-load-size 4 -boot-info-table "$work/iso"

cat >"$work/bochsrc" <<END
display_library: term
cpu: model=corei7_skylake_x, ips=100000000
memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
clock: sync=none
com1: enabled=1, mode=file, dev=$work/serial.log
log: $work/bochs.log
panic: action=fatal
END
# Debian's Bochs starts in its debugger (c: go on), and shows its screen on a terminal of its own, which someone must read.
echo c >"$work/rc"
rm -f "$work"/*.log && touch "$work"/{serial,screen}.log
TERM=xterm timeout "${LIMIT:-7200}" bochs -f "$work/bochsrc" -rc "$work/rc" >"$work/screen.log" 2>&1 </dev/null &
bochs=$!
until screen=$(grep -oE '/dev/pts/[0-9]+' "$work/screen.log"); do kill -0 $bochs || exit 1; sleep 1; done
stty -F "$screen" raw -echo
cat "$screen" >/dev/null 2>&1 &
tail -f --pid=$bochs "$work/serial.log"

exits=$(grep -cE '^EXIT (metaglot|conformance|guard_pages).*: 0\s*$' "$work/serial.log" || true)
tables=$(grep -cE '^test .*AVX-512 f32: the exponential|^AVX-512 f64: the exponential' "$work/serial.log" || true)
[[ $exits == 3 && $tables == 2 ]] && ! grep -qE 'skipped: avx512|FAILED' "$work/serial.log" ||
    { echo "AVX-512 in Bochs: failed; see $work/serial.log" >&2; exit 1; }
echo "AVX-512 in Bochs: passed"
