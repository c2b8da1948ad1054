"""The figure and the page of bench_replace."""
