"""Which placements move while they are trained?"""
