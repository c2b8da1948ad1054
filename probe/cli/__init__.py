"""The command line `probe-norms`: options in, one line for each mistake, results out."""
