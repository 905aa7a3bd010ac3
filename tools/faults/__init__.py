"""What a machine and its people can do to a run, staged one by one.

``python tools/faults`` kills a small study again and again, stages every other fault, and compares
every stored number with a run that nobody disturbed.
"""
