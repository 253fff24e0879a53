"""Makes a float model small and quick for its target, and proves what it lost."""
