"""The sampler: a small process with everup's rights that measures for the observer, which has none.

It reads what the kernel tells of the machine and of the processes that it is asked about, and says
numbers alone. Standard library only.
"""
