"""Few-shot topics in languages the model never saw: metaglot beside scikit-learn on the same episodes.

Needs: Python 3.10 or later; pip install numpy scikit-learn   (measured with scikit-learn 1.9, numpy 2)

    python3 benches/classify_table.py sib200.tsv.gz --model runs/sib/model.safetensors

The table (TSV, plain or .gz) has the columns split, sent_id, topic, lang, text: the user's own copy of SIB-200
(https://github.com/dadelani/sib-200). For each language: seeded episodes, support texts from one split, query texts
from another, so that no support text, and no translation of a query that was trained on, is ever a query.

- metaglot:      `metaglot classify --episodes`, which also reads, without labels, all other texts of the language's file
- metaglot alone: the same with `--alone`: the support texts and one query, nothing else
- LR, NC:        LogisticRegression and NearestCentroid over TF-IDF of character 1- to 4-grams, fitted on the support

Prints a Markdown table: mean accuracy over the episodes and a 95% interval, 1.96 * deviation / sqrt(episodes).
"""

import argparse
import csv
import gzip
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

# The matrices are small: threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid


def main():
    args = arguments()
    rows = read_table(args.table)
    columns = ["metaglot", "metaglot alone"] + ([] if args.skip_sklearn else ["LR", "NC"])
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for language in args.languages:
            episodes = draw_episodes(rows[language], language, args)
            path = Path(folder) / f"{language}.tsv"
            write_episodes(path, episodes)
            results[language] = [
                score(episodes, metaglot(args, path, [])),
                score(episodes, metaglot(args, path, ["--alone"])),
            ]
            if not args.skip_sklearn:
                results[language] += [score(episodes, p) for p in zip(*map(sklearn_answers, episodes))]
            print(language, *(f"{100 * r.mean():.1f}" for r in results[language]), file=sys.stderr, flush=True)
    print_table(columns, results, args)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--model", required=True, help="from `metaglot train --task classify`")
    parser.add_argument("--languages", default="por,ces,kaz,npi,fin", type=lambda s: s.split(","))
    parser.add_argument("--metaglot", default="target/release/metaglot", help="the program")
    parser.add_argument("--metaglot-options", default="", help="more options of `metaglot classify`, one string")
    parser.add_argument("--support-split", default="train")
    parser.add_argument("--query-split", default="dev")
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--queries", type=int, default=5, help="of each class")
    parser.add_argument("--episodes", type=int, default=600, help="of each language")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--skip-sklearn", action="store_true")
    return parser.parse_args()


def read_table(path):
    """{language: {split: {topic: [(sentence, text)]}}}"""
    rows = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        for r in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            rows[r["lang"]][r["split"]][r["topic"]].append((r["sent_id"], r["text"]))
    return rows


def draw_episodes(splits, language, args):
    """A list of (support, queries), each a list of (topic, text)."""
    rng = random.Random(f"{args.seed} {language}")
    support, query = splits[args.support_split], splits[args.query_split]
    topics = sorted(t for t in support if len(support[t]) >= args.shots and len(query.get(t, [])) >= args.queries)
    if len(topics) < args.ways:
        sys.exit(f"{language}: {len(topics)} topics have enough texts; {args.ways} are needed")
    episodes = []
    for _ in range(args.episodes):
        chosen = rng.sample(topics, args.ways)
        one = lambda pool, n: [(t, text) for t in chosen for _, text in rng.sample(pool[t], n)]
        episodes.append((one(support, args.shots), one(query, args.queries)))
    return episodes


def write_episodes(path, episodes):
    with open(path, "w", encoding="utf-8") as file:
        for i, (support, queries) in enumerate(episodes):
            for role, examples in (("support", support), ("query", queries)):
                for topic, text in examples:
                    # The label is what is printed, the class is what the model may know; here both are the topic.
                    # A query's are ignored: they are not told.
                    label, name = (topic, topic) if role == "support" else ("", "")
                    file.write(f"{i}\t{role}\t{label}\t{name}\t{text}\n")


def metaglot(args, path, options):
    """The answers for each episode."""
    start = time.time()
    command = [args.metaglot, "classify", "--checkpoint", args.model, "--episodes", path, *options]
    command += args.metaglot_options.split()
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    print(f"# metaglot classify {' '.join(options)} {path.name}: {time.time() - start:.1f} s", file=sys.stderr)
    size = args.ways * args.queries
    assert len(lines) == args.episodes * size, f"{len(lines)} answers to {args.episodes * size} queries"
    return [lines[i : i + size] for i in range(0, len(lines), size)]


def sklearn_answers(episode):
    """The answers of both classifiers to one episode."""
    support, queries = episode
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4))
    x = vectorizer.fit_transform(text for _, text in support)
    y = [topic for topic, _ in support]
    xq = vectorizer.transform(text for _, text in queries)
    return [model.fit(x, y).predict(xq) for model in (LogisticRegression(max_iter=1000), NearestCentroid())]


def score(episodes, answers):
    """The share of right answers in each episode."""
    return np.array([np.mean([t == a for (t, _), a in zip(q, given)]) for (_, q), given in zip(episodes, answers)])


def print_table(columns, results, args):
    print(f"{args.ways}-way {args.shots}-shot, {args.queries} queries a class, {args.episodes} episodes a language, "
          f"seed {args.seed}; accuracy in %\n")
    print("| language | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for language, scores in results.items():
        cells = [f"{100 * s.mean():.1f} ± {100 * interval(s):.1f}" for s in scores]
        print(f"| {language} | " + " | ".join(cells) + " |")
    means = [100 * np.mean([s.mean() for s in column]) for column in zip(*results.values())]
    print("| mean | " + " | ".join(f"{m:.1f}" for m in means) + " |")


def interval(scores):
    return 1.96 * scores.std(ddof=1) / np.sqrt(len(scores))


if __name__ == "__main__":
    main()
