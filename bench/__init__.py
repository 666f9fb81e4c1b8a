"""The benchmarks: `make bench` runs them all and writes RESULTS.md."""
