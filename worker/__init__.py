"""The worker: claims tasks of one shard and delivers them. It reaches Incus and has no network."""
