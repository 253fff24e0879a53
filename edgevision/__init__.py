"""edgevision: camera frames in, INT8 model, detections out over MQTT."""

__version__ = "0.1.0"
