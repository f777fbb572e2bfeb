"""How fast Everloop is beside others, and whether that is what was promised: the suite that `everloop bench` runs.

Part of the package, so that whoever installs it can measure on a machine of their own. A class of benchmarks is a file
of `classes`, somebody to be compared with a file of `peers`.
"""
