"""Is the exported model still its source? `edgevision parity`: output by output and prediction by prediction.

`outputs.py` pairs and compares the two models' tensors in real values, `predictions.py` what they find, `run.py` shows both
the same pictures and says the verdict, `tables.py` prints it.
"""
