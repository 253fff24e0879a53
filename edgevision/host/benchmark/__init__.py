"""How fast a model is on this machine: what `edgevision benchmark` measures, and what `edgevision compare` reads.

session    candidates one after the other; what an earlier run has finished is taken over
candidate  one candidate's jobs, put together as one result
child      a job in a process of its own; JSON lines over pipes
worker     that process; `jobs` is what it can do, `loops` what it times, `interleave` how
figures, early_stopping, noise     numbers out of samples
machine, sensors, power, layers    what is measured beside latency
document, table, plot              the result as JSON, Markdown and a picture
"""
