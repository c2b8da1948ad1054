"""The tables of the terminal, and the lines below them."""
