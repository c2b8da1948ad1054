"""One thin module per command, each of which imports its job only when it runs."""
