"""The named datasets: where each comes from, how it is fetched and read, and those that are made here."""
