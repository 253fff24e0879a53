"""Stage `preprocess`: a frame becomes the model's input tensor."""
