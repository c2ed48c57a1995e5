"""LightningDataModules over task sources: endless, seeded, sharded by rank, resumable. Touches environments."""
