"""Fuzz one decoder: python tests/fuzz/run.py NAME [--corpus FOLDER] [--found FOLDER] [options of libFuzzer].

An input that breaks a rule is written to --found, by default to tests/fuzz/regressions/NAME, where `make
test` reruns it. The corpus grows in --corpus, by default in a folder that is gone afterwards.
"""

import argparse
import sys
import tempfile
import tracemalloc
from pathlib import Path
from random import Random

import atheris

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
_FRAMES = 1
_RAW = 0.3
"""Part of the inputs that stay as libFuzzer changed them."""


def main() -> None:
    """Fuzz until libFuzzer's own limit (-runs, -max_total_time) ends it, or a rule is broken."""
    from fuzz_target import INPUT_LIMIT_BYTES, REGRESSIONS
    from targets import NAMES, target

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--found", type=Path)
    arguments, options = parser.parse_known_args()
    with atheris.instrument_imports(include=["memoturnd.core"]):
        chosen = target(arguments.name)
    with tempfile.TemporaryDirectory() as folder:
        corpus = arguments.corpus or Path(folder)
        found = arguments.found or REGRESSIONS / chosen.name
        corpus.mkdir(parents=True, exist_ok=True)
        found.mkdir(parents=True, exist_ok=True)
        inputs = chosen.seeds() + [path.read_bytes() for path in chosen.regressions()]
        for number, data in enumerate(inputs):
            (corpus / f"seed-{number}").write_bytes(data)

        def mutate(data: bytes, limit: int, seed: int) -> bytes:
            rng = Random(seed)
            if rng.random() < 0.5:
                data = atheris.Mutate(data, len(data))
            if rng.random() >= _RAW:
                data = chosen.mutate(bytes(data), rng)
            return bytes(data[:limit])

        tracemalloc.start(_FRAMES)
        atheris.Setup(
            [sys.argv[0], f"-max_len={INPUT_LIMIT_BYTES}", "-timeout=10", "-rss_limit_mb=1024",
             f"-artifact_prefix={found}/", *options, str(corpus)],
            lambda data: chosen.hold(data) and None,
            custom_mutator=mutate,
        )  # fmt: skip
        atheris.Fuzz()


if __name__ == "__main__":
    main()
