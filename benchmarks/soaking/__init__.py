"""The parts of `benchmarks/soak.py`: the world, what goes wrong in it, what is watched, and what is made of it."""
