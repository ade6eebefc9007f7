"""The built-in world: rendered photographs of Greek vases. numpy and Pillow only, deterministic by seed.

`shapes` turns a name into a profile and handles, `motifs` and `paint` decorate the wall, `damage` breaks it,
`render` photographs it, `world` writes what a museum would deliver.
"""
