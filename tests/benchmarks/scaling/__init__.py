"""What bench_scaling.py measures, computes and writes."""
