"""The workstation's half: it says how good a model is, how fast, and whether it still is the model it was.

Needs the extra `host`. The daemon never imports it (import-linter checks that); every figure goes through `pipeline.Model`,
the very code that the daemon runs.
"""
