"""Where rows are published: one file, one kind of target."""
