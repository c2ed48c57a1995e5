"""Questions over a local corpus or the web: tasks, environments, scoring, retrieval, the generated encyclopedia."""
