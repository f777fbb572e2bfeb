"""How files, folders, tables and lists become rows: what `everloop.data.files` and the modalities share."""
