"""The worlds, each in one folder with its tasks, scoring and scripted agents. Touches types, context and io; never
Lightning."""
