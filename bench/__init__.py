"""The benchmark: `python -m bench` measures the product on this machine and writes bench/RESULTS.md.

The rows, counts, seeds and percentile rules are those of the original system's two harnesses, so that the
figures can be held against the ones it published.
"""
