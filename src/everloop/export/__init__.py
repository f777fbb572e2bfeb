"""Graphs as documents: formulas. (A schedule as text is `compiler.describe`: kernels show it, too.)"""
