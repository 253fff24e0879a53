"""Stage `publish`: messages leave the house: one file a sink."""
