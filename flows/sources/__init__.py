"""Where rows come from: one file, one kind of source."""
