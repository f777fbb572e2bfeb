"""Graphs and plans as documents: formulas, schedules."""
