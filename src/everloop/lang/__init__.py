"""The language of cells: expressions, families of parameters, functions, `@cell`. Standard library only."""
