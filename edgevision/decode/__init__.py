"""Stage `decode`: output tensors become predictions: one file a model family."""
