"""Everything that touches a torch module of the user's: loading it, reading it under hooks,
changing its layers.
"""
