"""edgevision as a service of this machine: what is written where (`files`), and how it comes and goes (`steps`, `jobs`)."""
