"""`make demo`: the whole chain on the built-in world, through the same entry points a user types."""
