"""What `bench_peers.py` runs in processes of their own: the tools, the reference and the check."""
