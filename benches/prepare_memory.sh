#!/usr/bin/env bash
# Peak memory and time of `metaglot prepare` on a gigabyte of text in seven scripts, streamed through a pipe.
# Usage: benches/prepare_memory.sh [MEGABYTES] [THREADS]; fails if the peak is above 500 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
megabytes=${1:-1000}
threads=${2:-0}
cargo build --release --quiet
folder=$(mktemp -d target/prepare_memory.XXXXXX)
trap 'rm -rf "$folder"' EXIT
mkfifo "$folder/text.tsv"

# Words come from syllables, so that there are about a million different ones; keys are different strings, so that
# text ids are assigned outside memory too. The generator is a pure function of its arguments.
LC_ALL=C awk -v bytes="$((megabytes * 1000000))" '
BEGIN {
    syllables = "ba ko ri stel ung gard men to vi lar/мо ря зве да ле го ст вер кни жа/海 星 犬 走 空 語 学 町 人 火/" \
        "שׁ לו ם בי ת מל כ דר עי ר/सि ता रा क म ल ज न भा षा/كت اب مد رس بي ت شم س قم ر/θα λα σσα ου ρα νο φι λο σο μι"
    split(syllables, scripts, "/")
    for (script = 1; script <= 7; script++) {
        split(scripts[script], parts, " ")
        for (k = 1; k <= 10; k++) syllable[script - 1, k - 1] = parts[k]
    }
    split("eng rus jpn heb hin ara ell", language)
    x = 12345; print "key\tlocale\tintent\ttext"
    for (row = 0; done < bytes; row++) {
        script = row % 7; text = ""
        for (words = 5 + row % 60; words > 0; words--) {
            x = (x * 16807) % 2147483647
            for (r = x; r > 2000; r = int(r / 10)) text = text syllable[script, r % 10]
            text = text " "
        }
        line = "key-" row "\t" language[script + 1] "\tlabel" (x % 60) "\t" text
        done += length(line) + 1; print line
    }
}' > "$folder/text.tsv" &

start=$(date +%s.%N)
target/release/metaglot prepare "$folder/text.tsv" --text text --label intent --language locale --id key \
    --threads "$threads" --out "$folder/out.mgd" &
pid=$!
peak=0
while kill -0 "$pid" 2>/dev/null; do
    # The high-water mark only grows, so the last look before the end is at most a tick old.
    now=$(awk '/VmHWM/ { print $2 }' "/proc/$pid/status" 2>/dev/null || true)
    peak=${now:-$peak}
    sleep 0.1
done
wait "$pid"
seconds=$(echo "$(date +%s.%N) - $start" | bc)
echo "input_mb=$megabytes threads=$threads seconds=$seconds peak_kb=$peak output_bytes=$(stat -c %s "$folder/out.mgd")"
[ "$peak" -gt 0 ] && [ "$peak" -lt 500000 ]
