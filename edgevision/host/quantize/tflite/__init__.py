"""The .tflite side of quantising, and the way from an .onnx file to a .tflite file."""
