"""Decoding, exact: the best path of a chain (crf), of an alignment (ctc), of a writer (beam), each against brute force
in the tests."""
