"""Stage `inference`: tensors in, tensors out: one file a runtime."""
