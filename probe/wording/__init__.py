"""What the tables of a run say, in words: shared by the terminal, the report and the
documentation.
"""
