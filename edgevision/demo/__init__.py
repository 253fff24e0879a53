"""The demo: everything on one machine, without a camera and without a broker of one's own."""
