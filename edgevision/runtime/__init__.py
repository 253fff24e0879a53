"""The daemon: cameras, models and sinks at work, and what keeps them honest."""
