"""The .onnx side of quantising: the graph is prepared, its ranges are seen, quantisers are put in, and what runs is counted."""
