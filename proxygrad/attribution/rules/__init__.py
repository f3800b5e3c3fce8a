"""Rules: for each operation of aten, the multipliers of what it reads, given those of what it wrote.

A rule is ``rule(step, multipliers)``: for each tensor that varies, how much a unit of its difference from the
reference counts, so that products of multipliers and differences sum to the same before and after. May import
`attribution.recording.steps` and `attribution.recording.tape`. Read `table` first.
"""
