"""The queue of one shard in a SQLite database, built on persist-queue. All SQL of the service is here."""
