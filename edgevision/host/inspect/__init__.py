"""What a model file is, and what would make it faster on this machine: what `edgevision inspect` shows.

facts      what stands in the file
runs       what each runtime makes of it here: every one in a process of its own, because the file may crash it
advice     what would make it faster here
report     all of it, as JSON
"""
