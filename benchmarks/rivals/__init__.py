"""The catalog as others would compute it: rivals of the benchmarks, and independent oracles of the tests."""
