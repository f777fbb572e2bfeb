"""Passes over graphs: check, simplify, differentiate, plan. Graph in, Graph or Plan out; no arrays here."""
