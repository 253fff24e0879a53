"""Stage `capture`: frames from cameras, streams, files and pictures."""
