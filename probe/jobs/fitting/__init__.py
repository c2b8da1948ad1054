"""Curves fitted to every layer of a finished run, and the tables made from them."""
